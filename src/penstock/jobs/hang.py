"""Whether a gang hangs, and by whom. Pure: no clock, no process, no file.

A rank is late when it has shown no sign of life for longer than its phase may take. A gang hangs
when every rank at the lowest step is late: who is further on waits for those, and who is as far
and not late may be what the others wait for (a checkpoint onto a slow disk, say).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TIMES = 10  # a stretch this many times as long as the longest recent one is no unevenness any more
PATIENCE = 1800.0  # seconds for what has its own measure: starting, saving, evaluating, the end
STEPPING = ("compute", "data")


@dataclass(frozen=True, slots=True)
class Beat:
    """One rank, as the page of words shows it.

    step     completed
    phase    what it has been doing since its last sign of life, one of `words.PHASES`
    age      seconds since that sign
    longest  phase -> seconds of its longest recent stretch without a sign
    """

    rank: int
    step: int
    phase: str
    age: float
    longest: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Look:
    """One rank at the moment of a hang.

    state   of its process: "running", "sleeping", "stopped by SIGSTOP", "waiting for a device"
    where   its innermost line of the project, "train.py:12 in fit"; None where none is known
    inside  what that line had called, innermost; None where it called nothing
    waits   whether it is inside an operation that only other ranks can end
    kernel  functions of the kernel in which its main thread stands, innermost first, of a process
            that could not tell its own stack and as far as the kernel tells
    """

    rank: int
    step: int
    phase: str
    seconds: float
    state: str
    where: str | None = None
    inside: str | None = None
    waits: bool = False
    kernel: Sequence[str] = ()


def allowed(phase: str, beats: Sequence[Beat], floor: float) -> float:
    """Seconds that a phase may last without a sign of life.

    floor  from the setting `hang_seconds`
    Steps are measured by the longest recent one of any rank; all else has `PATIENCE` at least.
    """
    kinds = STEPPING if phase in STEPPING else (phase,)
    known = max((each.longest.get(kind, 0.0) for each in beats for kind in kinds), default=0.0)
    least = floor if phase in STEPPING else max(floor, PATIENCE)
    return max(least, TIMES * known)


def late(beats: Sequence[Beat], floor: float) -> tuple[Beat, ...]:
    """The ranks at the lowest step, when all of them are late; empty while the gang is well."""
    if not beats:
        return ()
    lowest = min(each.step for each in beats)
    behind = tuple(each for each in beats if each.step == lowest)
    if all(each.age > allowed(each.phase, beats, floor) for each in behind):
        return behind
    return ()


def accused(looks: Sequence[Look]) -> Look:
    """Who keeps the others waiting: the lowest step; of several there a stopped one, then one
    that waits for nobody, then the first."""

    def rank_of_blame(each: Look) -> tuple[int, bool, bool, int]:
        return each.step, not each.state.startswith("stopped"), each.waits, each.rank

    return min(looks, key=rank_of_blame)


def waiting(looks: Sequence[Look], culprit: Look) -> list[int]:
    """Ranks that wait for it."""
    others = (each for each in looks if each.rank != culprit.rank)
    return [each.rank for each in others if each.waits or each.step > culprit.step]


def said(account: Mapping[str, Any]) -> str:
    """An account (the body of `rank.hung`) as a line for people."""
    where = account["where"] or account["state"]
    who = ", ".join(f"rank {rank}" for rank in account["waiting"])
    more = f"; it keeps waiting: {who}" if who else ""
    if who and account["waits"]:  # one left out an operation, or does another one
        more = f"; it waits for the others, and they for it: {who}"
    silent = f"no sign of life for {account['seconds']:.0f} s"
    return f"rank {account['rank']} hangs at step {account['step']} ({where}), {silent}{more}"
