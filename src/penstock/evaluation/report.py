"""What an evaluation found: stored once as canonical JSON, read back whenever it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.blobs.port import Blobs
from penstock.evaluation.gates import GateOutcome
from penstock.evaluation.metrics import Estimate
from penstock.evaluation.suite import Suite
from penstock.records import Evaluation, from_json

FORMAT = 1
SliceValue = bool | int | str | None


@dataclass(frozen=True, slots=True)
class Slice:
    """Metrics of the samples that have one value in one column."""

    column: str
    value: SliceValue
    metrics: dict[str, Estimate]

    @property
    def n(self) -> int:
        return self.metrics["accuracy"].n

    def __str__(self) -> str:
        return f'"{self.value}"' if self.value is not None else "missing"


@dataclass(frozen=True, slots=True)
class Baseline:
    """asked     reference as asked
    resolved  version that it meant; None when there was nothing to compare with
    why       why there was nothing, else ""
    """

    asked: str
    resolved: str | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One Parquet blob of predictions: `rows` rows from row `start` of the split."""

    digest: str
    start: int
    rows: int


@dataclass(frozen=True, slots=True)
class Findings:
    """The stored report. Holds no time, so equal findings have equal digests.

    model, dataset  pinned references, "digits-cnn@1" and "digits@1:test"
    worst           the slice with the lowest accuracy, as an index into `slices`; None without any
    not_finite      samples whose scores were not finite: they count as wrong, and not in the loss
    """

    format: int
    suite: Suite
    model: str
    dataset: str
    rows: int
    metrics: dict[str, Estimate]
    slices: tuple[Slice, ...]
    worst: int | None
    gates: tuple[GateOutcome, ...]
    passed: bool
    baseline: Baseline | None
    predictions: tuple[Part, ...]
    not_finite: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict, and all that it rests on.

    evaluation  the committed row: what `promote` takes as evidence
    reused      nothing was computed, because …
    why         … of this
    """

    evaluation: Evaluation
    findings: Findings
    reused: bool = True
    why: str = field(default="", compare=False)

    @property
    def passed(self) -> bool:
        return self.evaluation.passed

    @property
    def metrics(self) -> dict[str, Estimate]:
        return self.findings.metrics

    @property
    def slices(self) -> tuple[Slice, ...]:
        return self.findings.slices

    @property
    def worst(self) -> Slice | None:
        at = self.findings.worst
        return None if at is None else self.findings.slices[at]

    @property
    def gates(self) -> tuple[GateOutcome, ...]:
        return self.findings.gates

    def line(self) -> str:
        """For people: `accuracy 0.983 [0.964, 0.992] · worst: "8" 0.940 [0.810, 0.980]`."""
        shown = f"accuracy {self.metrics['accuracy']}"
        if self.worst is not None:
            shown += f" · worst: {self.worst} {self.worst.metrics['accuracy']}"
        if self.findings.not_finite:
            shown += f" · {self.findings.not_finite:,} scores not finite"
        return shown

    def gate_lines(self) -> list[str]:
        """One line per gate, its outcome first."""
        return [f"{each.outcome.upper():9} {each.says}" for each in self.gates]


def read_report(blobs: Blobs, evaluation: Evaluation, why: str = "") -> Report:
    """The report of a committed evaluation. Raises NotFound, Damaged."""
    return Report(evaluation, from_json(Findings, blobs.get(evaluation.digest)), True, why)
