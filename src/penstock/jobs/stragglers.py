"""Which rank keeps the others waiting, and with what. Pure.

Ranks of a gang end a step together, so a slow one cannot be seen by how long its steps take: all
take as long. What differs is what each did in that time. A rank tells its wait for data and how
long it stood in collective operations without computing (on CPUs: wall time less the thread's own
CPU time there); the rest is its own computation. The slow rank has more of one of the first and
the last than the others, and least of the waiting, because it comes last.

Medians over a window of steps and over the ranks (of two: over the other one): one odd step, or
one odd rank, moves nothing, and never are half of them slow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

SLOWDOWN = 1.25  # times the others' own time, from which on a rank is called slow
NOTICED = 0.1  # of a step's time: less is not worth a word
FEWEST = 10  # steps that a judgement needs

Part = Literal["data", "compute"]


@dataclass(frozen=True, slots=True)
class Step:
    """Of one rank: seconds of a step, and of those waiting for data, for a checkpoint, and in
    collective operations; None: not told, as on GPUs, where nobody on the host can know."""

    seconds: float
    data: float
    checkpoint: float = 0.0
    collective: float | None = None


@dataclass(frozen=True, slots=True)
class Straggler:
    """Medians of seconds a step.

    part      what it is slow in
    seconds   that this takes it; `others`: the median of the ranks
    slowdown  its own time (data and computation) / that of the others
    waited    how much longer the others stood in collective operations than it did
    steps     that were looked at
    """

    rank: int
    part: Part
    seconds: float
    others: float
    slowdown: float
    waited: float
    steps: int


@dataclass(frozen=True, slots=True)
class _Means:
    data: float
    compute: float
    collective: float
    step: float

    @property
    def own(self) -> float:
        return self.data + self.compute


@dataclass(frozen=True, slots=True)
class _Usual:
    """Medians over ranks."""

    data: float
    compute: float
    own: float
    collective: float


def stragglers(ranks: Mapping[int, Sequence[Step]]) -> list[Straggler]:
    """The slow ones, the slowest first. ranks: the same steps of each, in order."""
    steps = min((len(each) for each in ranks.values()), default=0)
    if len(ranks) < 2 or steps < FEWEST:
        return []
    means = {rank: _means(each[-steps:]) for rank, each in ranks.items()}
    all_of_them = _usual(means.values())
    found = []
    for rank, own in means.items():
        others = all_of_them
        if len(means) == 2:
            others = _usual(each for other, each in means.items() if other != rank)
        data, compute = own.data - others.data, own.compute - others.compute
        if own.own < SLOWDOWN * others.own or data + compute < NOTICED * own.step:
            continue
        part: Part = "data" if data >= compute else "compute"
        found.append(
            Straggler(
                rank,
                part,
                getattr(own, part),
                getattr(others, part),
                own.own / max(others.own, 1e-9),
                max(0.0, others.collective - own.collective),
                steps,
            )
        )
    return sorted(found, key=lambda each: -each.slowdown)


def _usual(means: Iterable[_Means]) -> _Usual:
    """Computed once for all ranks: once for each of a thousand would be a million values."""
    known = list(means)
    return _Usual(
        data=median(each.data for each in known),
        compute=median(each.compute for each in known),
        own=median(each.own for each in known),
        collective=median(each.collective for each in known),
    )


def _means(steps: Sequence[Step]) -> _Means:
    """Where collective operations are not told, computation cannot be told from waiting: it counts
    as none, and only data is compared."""
    told = all(each.collective is not None for each in steps)
    return _Means(
        data=median(each.data for each in steps),
        compute=median(_compute(each) for each in steps) if told else 0.0,
        collective=median(each.collective or 0.0 for each in steps),
        step=median(each.seconds for each in steps),
    )


def _compute(step: Step) -> float:
    waits = step.data + step.checkpoint + (step.collective or 0.0)
    return max(0.0, step.seconds - waits)


def said(
    rank: int, part: str, seconds: float, others: float, slowdown: float, waited: float
) -> str:
    """In one line, for people."""
    own, theirs, wait = (f"{1000 * each:.3g} ms" for each in (seconds, others, waited))
    more = f"; they wait {wait} a step for it" if waited > 0 else ""
    slower = f"rank {rank} is {slowdown:.2g}x slower than the median"
    return f"{slower}, in {part}: {own} a step, the others {theirs}{more}"
