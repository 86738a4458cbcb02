"""A run as it is at this moment, for somebody who watches: how far, how fast, who does what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penstock.monitoring.throughput import Throughput, throughput
from penstock.monitoring.told import Told
from penstock.records import Attempt, Checkpoint, Event

_WINDOW = 30.0  # seconds over which a pace is taken
_FEWEST = 5  # steps, where they are longer than that


@dataclass(frozen=True, slots=True)
class RankNow:
    """step     completed optimiser steps, as the rank told; None before the first of the attempt
    phase    "starting", "step", "evaluation", "checkpoint", "publishing", "comparing" or "ending"
    seconds  since it told anything
    behind   steps that the furthest rank has more
    """

    rank: int
    step: int | None
    phase: str
    seconds: float
    behind: int


@dataclass(frozen=True, slots=True)
class Live:
    """steps     in all; None where nobody knows. eta: seconds to the last one, at this pace
    pace      steps per second, of late; None before there are any
    throughput  of late
    attempt   its number; 0 before the first
    series    scalar -> its newest (step, value), as rank 0 told them, the oldest first
    events    the newest, the oldest first; checkpoints: the newest first
    """

    step: int
    steps: int | None
    pace: float | None
    eta: float | None
    throughput: Throughput
    attempt: int
    ranks: list[RankNow]
    series: dict[str, list[tuple[int, float]]]
    events: list[Event]
    checkpoints: list[Checkpoint]


def live(
    steps: int | None,
    attempts: Sequence[Attempt],
    events: Sequence[Event],
    checkpoints: Sequence[Checkpoint],
    told: Mapping[tuple[int, int], Told],
    now: float,
    alive: bool,
    peak_flops: float | None = None,
) -> Live:
    """Pure. Of ranks those of the newest attempt; nothing is said of their pace once it is over."""
    generation = attempts[-1].generation if attempts else -1
    newest = {key: each for key, each in sorted(told.items()) if key[0] == generation}
    own = {rank: each for (_, rank), each in newest.items()}
    reached = {rank: int(t.steps[-1]) if len(t.steps) else None for rank, t in own.items()}
    furthest = max((step for step in reached.values() if step is not None), default=0)
    ranks = [
        RankNow(rank, reached[rank], _phase(t), max(0.0, now - t.last), _behind(furthest, t))
        for rank, t in own.items()
    ]
    step = furthest or (int(checkpoints[0].step) if checkpoints else 0)
    paces = [found for each in own.values() if (found := pace(each)) is not None]
    slowest = min(paces) if paces and alive else None
    left = None if steps is None else max(0, steps - step)
    return Live(
        step=step,
        steps=steps,
        pace=slowest,
        eta=left / slowest if left is not None and slowest else None,
        throughput=throughput(newest if alive else {}, peak_flops, _WINDOW),
        attempt=attempts[-1].number if attempts else 0,
        ranks=ranks,
        series=_series(told),
        events=list(events),
        checkpoints=list(checkpoints),
    )


def pace(own: Told) -> float | None:
    """Steps per second over the newest half minute, or the newest five steps."""
    if len(own.ends) == 0:
        return None
    ends = np.array(own.ends[-10_000:])
    count = max(_FEWEST, int((ends > ends[-1] - _WINDOW).sum()))
    took = float(np.array(own.seconds[-min(count, len(ends)) :]).sum())
    return min(count, len(ends)) / took if took > 0 else None


def _behind(furthest: int, own: Told) -> int:
    return furthest - int(own.steps[-1]) if len(own.steps) else 0


def _phase(own: Told) -> str:
    if own.inside:
        return "step" if own.inside == "steps" else own.inside
    return "ending" if own.loop is not None else "starting"


def _series(told: Mapping[tuple[int, int], Told]) -> dict[str, list[tuple[int, float]]]:
    """Over attempts: what was computed again replaces what an earlier one told."""
    found: dict[str, dict[int, float]] = {}
    for (_, rank), own in sorted(told.items(), key=lambda each: each[0]):
        for name, points in own.series.items() if rank == 0 else ():
            found.setdefault(name, {}).update(points)
    return {name: sorted(points.items()) for name, points in found.items()}
