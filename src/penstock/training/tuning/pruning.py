"""Which trial is given up early. Pure: curves in, a reason or None out.

A point of a trial's curve is judged once, when it is told, against what the other trials had told
by that step. So the answer does not depend on when somebody looked, and a study that goes on after
a crash needs no memory of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from penstock.training.tuning.history import (
    Curve,
    Direction,
    Trial,
    better,
    up_to,
    value_of,
)

Pruner = Literal["none", "median", "halving", "hyperband"]
PRUNERS: tuple[Pruner, ...] = ("none", "median", "halving", "hyperband")
STARTUP = 5  # complete trials before the median counts
FACTOR = 3  # one of so many gets to the next rung
_RUNGS = 3  # below the longest trial, where nobody said how long the first one is


@dataclass(frozen=True, slots=True)
class Rule:
    """warmup: steps in which nothing is given up; with halving also the first rung."""

    pruner: Pruner
    direction: Direction
    warmup: int | None = None


def prune(rule: Rule, own: Trial, curve: Curve, others: Sequence[Trial]) -> str | None:
    """Why a trial is given up at the last point of its curve; None: it goes on.

    curve   of this trial up to the point that is judged
    others  all other trials, as far as they are known
    """
    if rule.pruner == "none" or not curve or curve[-1][0] <= (rule.warmup or 0) - 1:
        return None
    step, value = curve[-1]
    if math.isnan(value):
        return f"not a number at step {step}"
    if rule.pruner == "median":
        return _below_median(rule, curve, others)
    return _below_rung(rule, own, curve, others)


def _below_median(rule: Rule, curve: Curve, others: Sequence[Trial]) -> str | None:
    step = curve[-1][0]
    at_step = [up_to(each.curve, step) for each in others if each.state == "complete"]
    values = [value for value in at_step if value is not None and not math.isnan(value)]
    if len(values) < STARTUP:
        return None
    middle = median(values)
    own = value_of(curve, "best", rule.direction)
    assert own is not None
    if better(rule.direction, middle, own):
        return f"{own:.6g} at step {step}, the median of {len(values)} is {middle:.6g}"
    return None


def _below_rung(rule: Rule, own: Trial, curve: Curve, others: Sequence[Trial]) -> str | None:
    """Asynchronous successive halving: a trial passes a rung when it is in the best third of those
    that got there; of two or one, when it is the best."""
    longest = max((each.curve[-1][0] for each in others if _has_all(each)), default=0)
    first = rule.warmup or longest // FACTOR**_RUNGS
    if first < 1:
        if rule.warmup is None and longest == 0:
            return None  # nobody knows yet how long a trial is
        first = 1
    peers = list(others)
    if rule.pruner == "hyperband":
        brackets = _brackets(first, longest)
        first *= FACTOR ** (own.number % brackets)
        peers = [each for each in others if each.number % brackets == own.number % brackets]
    rung = _rung(first, curve)
    if rung is None:
        return None
    there = [at for each in peers if (at := _first_from(each.curve, rung)) is not None]
    values = [curve[-1][1], *(value for value in there if not math.isnan(value))]
    values.sort(reverse=rule.direction == "maximize")
    bar = values[max(1, len(values) // FACTOR) - 1]
    if better(rule.direction, bar, curve[-1][1]):
        own_at = f"{curve[-1][1]:.6g} at step {curve[-1][0]}"
        return f"{own_at}, rung {rung} of {len(values)} trials lets {bar:.6g} pass"
    return None


def _has_all(trial: Trial) -> bool:
    return trial.state == "complete" and bool(trial.curve)


def _brackets(first: int, longest: int) -> int:
    """How many of Hyperband's brackets there are: the first rung of each is longer."""
    count = 1
    while count <= _RUNGS and first * FACTOR**count <= longest:
        count += 1
    return count


def _rung(first: int, curve: Curve) -> int | None:
    """The highest rung that the curve's last point is the first to reach; None for another one."""
    step = curve[-1][0]
    before = curve[-2][0] if len(curve) > 1 else 0
    rung, found = first, None
    while rung <= step:
        if rung > before:
            found = rung
        rung *= FACTOR
    return found


def _first_from(curve: Curve, step: int) -> float | None:
    """The first value told at a step or later."""
    return next((value for at, value in curve if at >= step), None)
