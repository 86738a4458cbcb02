"""`penstock demo`: the whole life of a model on real digits, with kills and damage on purpose.

story     the steps, in order, each a few lines and a few facts
saboteur  kills ranks and flips a bit while training goes on
facts     what happened, read back from events, signals and checkpoints
verdict   whether all promises were kept
project   where the example project is
"""

from penstock.cli.demo.story import run

__all__ = ["run"]
