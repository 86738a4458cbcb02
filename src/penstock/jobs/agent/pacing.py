"""When all ranks of a gang fill a slot that stays: announced a while ahead, by their pace."""

from __future__ import annotations

import time
from collections.abc import Callable

from penstock.jobs.agent.held import next_step
from penstock.jobs.words import Words

_LEAST_STEPS, _LEAST_SECONDS = 2, 0.25  # over which a pace is measured


class Pacing:
    """Of one gang, whose ranks asked for it.

    clock  seconds, monotonic
    """

    def __init__(self, words: Words, clock: Callable[[], float] = time.monotonic) -> None:
        self._words = words
        self._clock = clock
        self._mark: tuple[float, int] | None = None  # when, and how far the slowest rank was
        self._announced = 0

    def look(self, cost: float | None) -> None:
        """Called several times a second. cost: see `Sharing.cost`."""
        slowest = min(self._words.steps())
        if cost is None or slowest < max(1, self._announced):
            return
        now = self._clock()
        if self._mark is None:
            self._mark = (now, slowest)
            return
        seconds, steps = now - self._mark[0], slowest - self._mark[1]
        if seconds < _LEAST_SECONDS or steps < _LEAST_STEPS:
            return
        self._announced = next_step(self._words.steps(), steps / seconds, cost)
        self._words.keep_at = self._announced
        self._mark = (now, slowest)
