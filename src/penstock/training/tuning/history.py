"""What is known of a study's trials, and what follows from it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["waiting", "running", "complete", "pruned", "failed"]
Direction = Literal["minimize", "maximize"]
Taken = Literal["last", "best"]
Curve = list[tuple[int, float]]
"""(step, value), steps rising."""

SETTLED: frozenset[str] = frozenset({"complete", "pruned", "failed"})
_POINTS = 256  # of a curve that are remembered


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of values, and what came of it.

    state   waiting: it has a row and goes on with the next call; running; complete; pruned:
            stopped early, because others were better; failed
    run     id of its run; `name` is the run's
    value   of the metric; None where it has none (yet)
    step    of its run, as last told
    model   reference of what it published; None without one
    reason  why it failed or was pruned
    """

    number: int
    run: str
    name: str
    state: State
    params: dict[str, Any]
    value: float | None = None
    step: int = 0
    model: str | None = None
    reason: str | None = None
    created_at: float = 0.0
    ended_at: float | None = None
    curve: Curve = field(default_factory=list, repr=False)


def better(direction: Direction, one: float, other: float) -> bool:
    """Whether `one` is better; a number is better than NaN."""
    if math.isnan(one) or math.isnan(other):
        return not math.isnan(one) and math.isnan(other)
    return one > other if direction == "maximize" else one < other


def best_of(trials: Iterable[Trial], direction: Direction) -> Trial | None:
    """The best complete trial; of equals the first."""
    found: Trial | None = None
    for trial in trials:
        if trial.state != "complete" or trial.value is None:
            continue
        if found is None or found.value is None or better(direction, trial.value, found.value):
            found = trial
    return found


def value_of(curve: Curve, taken: Taken, direction: Direction) -> float | None:
    """The value that counts: the last one told, or the best."""
    if not curve:
        return None
    if taken == "last":
        return curve[-1][1]
    found = curve[0][1]
    for _, value in curve:
        if better(direction, value, found):
            found = value
    return found


def up_to(curve: Curve, step: int) -> float | None:
    """The newest value at a step; None before the first one."""
    found = None
    for at, value in curve:
        if at > step:
            break
        found = value
    return found


def thinned(curve: Curve, points: int = _POINTS) -> Curve:
    """At most so many points, spread evenly, the first and the last among them.

    >>> thinned([(n, 0.0) for n in range(10)], 4)
    [(0, 0.0), (3, 0.0), (6, 0.0), (9, 0.0)]
    """
    if len(curve) <= points:
        return curve
    last = len(curve) - 1
    return [curve[round(at * last / (points - 1))] for at in range(points)]


def counts(trials: Sequence[Trial]) -> dict[str, int]:
    """State -> how many, those that are not there left out."""
    found: dict[str, int] = {}
    for trial in trials:
        found[trial.state] = found.get(trial.state, 0) + 1
    return found
