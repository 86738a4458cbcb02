"""What a benchmark gets: alternating rounds, samples, ratios, goals, processes, a scratch folder.

A Bench belongs to one thread. Its processes end with it, whatever happens: see children.py.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.frame import environments
from benchmarks.frame.children import Children


@dataclass(frozen=True)
class Row:
    """All samples of one metric of one subject; n is how many there were."""

    subject: str
    metric: str
    unit: str
    median: float
    min: float
    max: float
    n: int


@dataclass(frozen=True)
class Goal:
    """wanted  in words, such as "at most 0.3 s"; got  NaN when nothing could be measured"""

    name: str
    wanted: str
    got: float
    holds: bool


@dataclass
class Bench:
    """quick    fewer rounds
    asked    so many rounds; None: as many as the benchmark takes
    seed     of every random choice; printed, so that a run can be repeated
    scratch  a folder of this run's own, removed afterwards
    """

    name: str
    quick: bool
    seed: int
    scratch: Path
    peers: dict[str, list[str]] = field(default_factory=dict)
    samples: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    children: Children = field(default_factory=Children)
    asked: int | None = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    # -- measuring ------------------------------------------------------------------------------

    def rounds(self, quick: int, full: int) -> int:
        return self.asked or (quick if self.quick else full)

    def alternate(self, rounds: int, *subjects: Callable[[], None]) -> None:
        """Each subject once per round, in turning order: what the machine does meanwhile, and
        who goes first, meets all alike."""
        for number in range(rounds):
            self.say(f"round {number + 1} of {rounds}")
            turn = number % len(subjects)
            for subject in subjects[turn:] + subjects[:turn]:
                subject()

    def add(self, subject: str, metric: str, unit: str, value: float) -> None:
        """One sample."""
        self.samples.setdefault((subject, metric, unit), []).append(value)
        self.say(f"  {subject}: {metric} {value:.3f} {unit}")

    def median(self, subject: str, metric: str) -> float:
        """NaN without a sample."""
        values = [v for (s, m, _), found in self.samples.items() if (s, m) == (subject, metric)
                  for v in found]  # fmt: skip
        return statistics.median(values) if values else math.nan

    def percentile(self, subject: str, metric: str, share: float) -> float:
        """The smallest sample that `share` of them do not exceed, as a row of its own too; NaN
        without a sample. share  0..1"""
        for (who, what, unit), found in list(self.samples.items()):
            if (who, what) == (subject, metric):
                value = sorted(found)[max(0, math.ceil(share * len(found)) - 1)]
                self.add(subject, f"{metric}, p{100 * share:g}", unit, value)
                return value
        return math.nan

    def ratio(self, name: str, metric: str, *, over: str, under: str) -> float:
        """Median of one subject over the median of another; NaN when one has no sample."""
        below = self.median(under, metric)
        value = self.median(over, metric) / below if below else math.nan
        self.ratios[name] = value
        return value

    def rows(self) -> list[Row]:
        return [
            Row(*key, statistics.median(found), min(found), max(found), len(found))
            for key, found in self.samples.items()
        ]

    # -- goals ----------------------------------------------------------------------------------

    def at_most(self, name: str, wanted: float, got: float, unit: str = "") -> None:
        self._goal(name, f"at most {wanted:g} {unit}", got, got <= wanted)

    def at_least(self, name: str, wanted: float, got: float, unit: str = "") -> None:
        self._goal(name, f"at least {wanted:g} {unit}", got, got >= wanted)

    def exactly(self, name: str, wanted: float, got: float, unit: str = "") -> None:
        self._goal(name, f"exactly {wanted:g} {unit}", got, got == wanted)

    def _goal(self, name: str, wanted: str, got: float, holds: bool) -> None:
        """Nothing compares true with NaN: what was not measured does not hold."""
        self.goals.append(Goal(name, wanted.strip(), got, holds))

    # -- around it ------------------------------------------------------------------------------

    def note(self, line: str) -> None:
        """What a reader of the table must know: printed below it and kept in the JSON."""
        self.notes.append(line)

    def say(self, line: str) -> None:
        """Progress, on stderr."""
        print(line, file=sys.stderr, flush=True)

    def folder(self, name: str) -> Path:
        """A new empty folder in the scratch folder."""
        path = self.scratch / f"{name}-{len(list(self.scratch.iterdir()))}"
        path.mkdir()
        return path

    def python(self, peer: str) -> Path:
        """The interpreter of a peer's own environment, made when it is not there yet."""
        return environments.make(peer, self.peers[peer], self.say)

    def start(self, command: Sequence[str | Path], **options: Any) -> Any:
        """A process that dies with the benchmark; see Children.start."""
        return self.children.start(command, **options)

    def results(self) -> dict[str, Any]:
        """The measured part of the report."""
        return {
            "rows": [asdict(row) for row in self.rows()],
            "ratios": self.ratios,
            "goals": [asdict(goal) for goal in self.goals],
            "notes": self.notes,
        }
