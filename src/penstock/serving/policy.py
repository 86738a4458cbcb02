"""What a keeper does next for one deployment. Pure: no clock, no process, no store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BUDGET = 5  # failures in a row before a keeper gives up
HEALTHY = 30.0  # seconds of service after which earlier failures are forgotten
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0

# Errors that the next start would meet again: retrying them only hides them.
HOPELESS = frozenset({"bad-input", "cannot-travel", "damaged", "missing-extra", "not-found"})

Action = Literal["start", "abandon", "stop", "give-up", "wait"]


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a deployment.

    wanted    reference that should answer; None when it should be down
    serving   reference of the replica that answers; None when none does
    starting  reference of the replica that is being started; None when none is
    failures  of this wish, in a row
    retry_at  seconds on the keeper's clock before which no new start is tried
    given_up  this wish was given up
    now       seconds on the keeper's clock
    """

    wanted: str | None
    serving: str | None
    starting: str | None
    failures: int = 0
    retry_at: float = 0.0
    given_up: bool = False
    now: float = 0.0


def decide(seen: Seen, budget: int = BUDGET) -> Action:
    """One action at a time; the caller carries it out and looks again.

    abandon  kill the replica that is starting: it is not wanted any more
    stop     drain the one that answers
    """
    if seen.starting is not None and seen.starting != seen.wanted:
        return "abandon"
    if seen.wanted is None:
        return "stop" if seen.serving is not None else "wait"
    if seen.starting is not None or seen.serving == seen.wanted or seen.given_up:
        return "wait"
    if seen.failures >= budget:
        return "give-up"
    return "start" if seen.now >= seen.retry_at else "wait"


def pause(failures: int) -> float:
    """Seconds before the next start: none after the first failure, then twice as long each time.

    >>> [pause(n) for n in (1, 2, 3, 9)]
    [0.0, 0.2, 0.4, 10.0]
    """
    if failures <= 1:
        return 0.0
    return float(min(_FIRST_PAUSE * 2 ** (failures - 2), _LONGEST_PAUSE))
