"""A rank's sign of life: what it is doing, and since when, in the page of words.

Each beat is two plain stores into shared memory, about a microsecond; nothing waits for a reader.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from penstock.jobs.words import AFTER, COMPUTE, DATA, PHASES, STARTING, Words

_SLOWLY = 10  # a long stretch is forgotten by 1/1024 with each shorter one of its phase


class Pulse:
    """One rank's; without words where nobody watches (workers=0).

    It begins in "starting", and stays there until the first step is complete: imports, restoring,
    compilation and the first batch are no measure of a step.
    """

    def __init__(self, words: Words | None = None, rank: int = 0) -> None:
        self._words = words
        self._rank = rank
        self._phase = STARTING
        self._since = time.monotonic_ns()
        self._longest = [0] * len(PHASES)
        if words is not None:
            words.set_mark(rank, STARTING, self._since)

    def beat(self, phase: int) -> None:
        """Progress: the phase (one of `words.PHASES`) begins now, or goes on."""
        if self._words is None:
            return
        before, now = self._phase, time.monotonic_ns()
        span, longest = now - self._since, self._longest[before]
        self._longest[before] = longest = span if span > longest else longest - (longest >> _SLOWLY)
        self._phase, self._since = phase, now
        if before != STARTING:
            self._words.set_longest(self._rank, before, longest)
        self._words.set_mark(self._rank, phase, now)

    def enter(self, phase: int) -> None:
        """Like `beat`, inside a step; nothing before the first one is complete."""
        if self._phase in (COMPUTE, DATA):
            self.beat(phase)

    def step_done(self) -> None:
        """A step is complete, and the next batch is waited for."""
        self.beat(DATA)

    def over(self) -> None:
        """The loop came to its end."""
        self.beat(AFTER)

    @contextmanager
    def during(self, phase: int) -> Iterator[None]:
        """The phase inside, afterwards again what was before."""
        outer = self._phase
        self.beat(phase)
        try:
            yield
        finally:
            self.beat(outer)
