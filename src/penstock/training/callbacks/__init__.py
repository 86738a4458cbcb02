"""Runs for the loops of other trainers: `lightning`, `transformers`, each a `PenstockCallback`.

Each gives the trainer's own loop a run by `ps.attach`'s means: its state is saved at step
boundaries, without pickle, and put back before its first step.
"""
