"""A run's claim on devices of one machine: what it wants, and what it holds."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Claim:
    """One row per run that holds devices or waits for them.

    host    the machine's name
    ticket  cursor of the event with which it came: the order of the queue
    since   seconds since 1970
    wants   kind -> how many: {"gpu": 2, "core": 4}
    holds   "KIND/NAME", e.g. "gpu/GPU-5f2c…"; empty while it waits
    """

    run_id: str
    host: str
    ticket: int
    since: float
    wants: dict[str, int]
    holds: list[str] = field(default_factory=list)
