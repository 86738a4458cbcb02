"""Slow ranks of the newest attempt, by the newest steps that all its ranks told."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from penstock.jobs.stragglers import Step, Straggler, stragglers
from penstock.monitoring.told import Told

WINDOW = 50  # steps


def slow_ranks(told: Mapping[tuple[int, int], Told]) -> list[Straggler]:
    """The slowest first; none where ranks told too few steps in common."""
    newest = max((generation for generation, _ in told), default=0)
    own = {rank: each for (generation, rank), each in told.items() if generation == newest}
    shared: set[int] = set.intersection(*(_steps(each) for each in own.values())) if own else set()
    window = set(sorted(shared)[-WINDOW:])
    return stragglers({rank: _window(each, window) for rank, each in own.items()})


def _steps(own: Told) -> set[int]:
    return set(own.steps[-2 * WINDOW :])


def _window(own: Told, window: set[int]) -> list[Step]:
    found = {}
    for place in range(max(0, len(own.steps) - 2 * WINDOW), len(own.steps)):
        if own.steps[place] in window:
            waited = own.collective[place]
            found[own.steps[place]] = Step(
                own.seconds[place],
                own.data[place],
                own.checkpoint[place],
                None if np.isnan(waited) else waited,
            )
    return [found[step] for step in sorted(found)]
