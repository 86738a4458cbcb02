"""Preparation: raw files, a dataset version or a function's rows become a new dataset version.

Two stages. Units of inputs run through the user's steps (`unit.py`), as a map on leased units whose
outputs are remembered by what they depend on; then their rows are laid into splits and full shards
(`assembly.py`, `shelf.py`), without passing through one process.
"""

from penstock.data.preparation.past import Prepared
from penstock.data.preparation.planning import Plan
from penstock.data.preparation.running import Progress
from penstock.data.preparation.splitting import ByTime
from penstock.data.preparation.steps import Step
from penstock.data.preparation.verb import explain, prepare
from penstock.data.preparation.whole import Join

__all__ = ["ByTime", "Join", "Plan", "Prepared", "Progress", "Step", "explain", "prepare"]
