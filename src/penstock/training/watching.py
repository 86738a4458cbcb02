"""How far a run is, for whoever watches it from its script: step, steps in all, newest scalars."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from penstock.jobs.stores import Stores
from penstock.records import Run
from penstock.signals.newest import Newest

_EVERY = 0.5  # seconds between two words


@dataclass(frozen=True, slots=True)
class Progress:
    """What `on_progress` is called with.

    step    completed, as its row tells
    steps   in all; None where nobody knows
    values  scalars as rank 0 told them last, Penstock's own left out
    """

    name: str
    step: int
    steps: int | None
    values: dict[str, float]


OnProgress = Callable[[Progress], None]


class Watch:
    """Tells at most twice a second, in the thread that asks it to."""

    def __init__(self, stores: Stores, run: Run, on_progress: OnProgress) -> None:
        self._newest = Newest(stores.layout.signals(run.id))
        self._on_progress = on_progress
        self._next = 0.0

    def tell(self, run: Run) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY
        told = self._newest.look().items()
        values = {name: value for name, value in told if not name.startswith("penstock/")}
        self._on_progress(Progress(run.name, run.step, run.spec.get("steps"), values))
