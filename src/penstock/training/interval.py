"""How often a run saves, where nobody says: from what a save costs and how often attempts fail.

Saving more often costs more, saving less often has more computed again after a failure; the sum is
least near sqrt(2 * cost * time between failures). Pure.
Sources: Young 1974, A first order approximation to the optimum checkpoint interval; Daly 2006, A
higher order estimate of the optimum checkpoint interval for restart dumps (its first order).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from penstock.records import Attempt

FIRST = 10.0  # seconds to the first save, which tells what one costs
LEAST, MOST = 5.0, 600.0  # seconds
_PRIOR = 6 * 3600.0  # seconds in which one failure is expected before anything was seen
_NEWEST = 5  # saves whose median counts


@dataclass(frozen=True, slots=True)
class Interval:
    """seconds  between two saves
    cost     core seconds that a save takes from the slowest rank
    between  seconds between two failures
    """

    seconds: float
    cost: float
    between: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def choose(costs: Sequence[float], failures: int, seconds: float) -> Interval:
    """costs     of saves, the newest last; at least one
    failures  that were seen in so many `seconds`

    >>> round(choose([0.1], failures=0, seconds=0.0).seconds)
    66
    >>> round(choose([0.1], failures=60, seconds=600.0).seconds, 1)
    8.5
    """
    cost = statistics.median(costs[-_NEWEST:])
    between = (_PRIOR + seconds) / (1 + failures)
    return Interval(min(MOST, max(LEAST, math.sqrt(2 * cost * between))), cost, between)


def failed(attempts: Sequence[Attempt], now: float) -> tuple[int, float]:
    """How many attempts ended before their time, and how long all of them ran, in seconds."""
    count = sum(1 for each in attempts if each.ended_at is not None and _is_failure(each.cause))
    ends = [now if each.ended_at is None else each.ended_at for each in attempts]
    ran = sum(max(0.0, end - each.started_at) for each, end in zip(attempts, ends, strict=True))
    return count, ran


def _is_failure(cause: str | None) -> bool:
    """A stop, a preemption, another size and the end are none."""
    return (cause or "").startswith("rank ") or cause in ("the agent died", "interrupted")


class Pacing:
    """When the next save of a run is due, by time.

    every    what was asked for: "auto", seconds, or None where steps decide
    known    what the run chose in an earlier attempt
    """

    def __init__(self, every: float | str | None, known: dict[str, float] | None = None) -> None:
        self._every = every
        self._costs: list[float] = []
        self._failures, self._ran = 0, 0.0
        self.chosen = Interval(**known) if known else None

    @property
    def seconds(self) -> float | None:
        if self._every != "auto":
            return None if self._every is None else float(self._every)
        return FIRST if self.chosen is None else self.chosen.seconds

    def seen(self, failures: int, ran: float) -> None:
        """What the run's attempts were like so far."""
        self._failures, self._ran = failures, ran

    def saved(self, parts: Sequence[dict[str, Any]]) -> Interval | None:
        """A checkpoint of these parts was committed: the interval, when it is another now."""
        if self._every != "auto":
            return None
        costs = [part["extra"].get("seconds", 0.0) + part.get("seconds", 0.0) for part in parts]
        self._costs = [*self._costs[1 - _NEWEST :], max(costs)]
        found, before = choose(self._costs, self._failures, self._ran), self.chosen
        if before is not None and 0.8 < found.seconds / before.seconds < 1.25:
            return None  # not worth a word
        self.chosen = found
        return found
