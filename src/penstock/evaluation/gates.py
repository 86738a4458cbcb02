"""Gates on bounds: passed, failed, undecided (and how many samples would decide), or skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from penstock.evaluation.metrics import Estimate, Moments, interval
from penstock.evaluation.statistics import Z, paired_difference, samples_needed, wilson
from penstock.evaluation.suite import Gate

Outcome = Literal["passed", "failed", "undecided", "skipped"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Model and baseline on the same samples.

    gained, lost  samples that only the model, or only the baseline, got right
    loss          moments of (baseline's loss - model's loss), where both are finite
    """

    baseline: str
    n: int
    gained: int
    lost: int
    loss: Moments

    def advantage(self, metric: str) -> Estimate | None:
        """How much better the model is, in units of the metric; None when it was not measured."""
        if metric == "accuracy":
            low, high = paired_difference(self.gained, self.lost, self.n)
            return Estimate((self.gained - self.lost) / self.n, low, high, self.n)
        return self.loss.estimate() if self.loss.n else None


@dataclass(frozen=True, slots=True)
class GateOutcome:
    """One gate's verdict.

    says    one line for people
    needed  about how many samples would decide it; only where it is undecided and counting helps
    """

    gate: Gate
    outcome: Outcome
    says: str
    estimate: Estimate | None = None
    needed: int | None = None


def judge(
    gate: Gate,
    metrics: Mapping[str, Estimate],
    comparison: Comparison | None,
    no_comparison: tuple[Outcome, str],
) -> GateOutcome:
    """The outcome of one gate.

    comparison     with the baseline, where there is one
    no_comparison  what becomes of a `not_worse` gate otherwise, and why
    """
    if gate.kind == "at_least":
        return _at_least(gate, metrics.get(gate.metric))
    if comparison is None:
        outcome, why = no_comparison
        return GateOutcome(gate, outcome, f"{gate}: {outcome}, {why}")
    return _not_worse(gate, comparison)


def passed(outcomes: list[GateOutcome]) -> bool:
    """The verdict: there is a gate, and none of them says no."""
    return bool(outcomes) and all(each.outcome in ("passed", "skipped") for each in outcomes)


def _at_least(gate: Gate, found: Estimate | None) -> GateOutcome:
    if found is None or found.low is None or found.high is None:
        return GateOutcome(gate, "failed", f"{gate}: failed, it was not measured", found)
    rate = found.value
    says = f"{gate.metric} {found}"
    if found.low >= gate.bound:
        return GateOutcome(gate, "passed", f"{says} is at least {gate.bound:g}", found)
    if found.high < gate.bound:
        return GateOutcome(gate, "failed", f"{says} is below {gate.bound:g}", found)

    def settled(n: float) -> bool:
        low, high = wilson(rate * n, n)
        return low >= gate.bound or high < gate.bound

    needed = samples_needed(settled, found.n)
    return GateOutcome(
        gate, "undecided", f"{says} may be below {gate.bound:g}: {_more(needed, found.n)}",
        found, needed,
    )  # fmt: skip


def _not_worse(gate: Gate, pair: Comparison) -> GateOutcome:
    found = pair.advantage(gate.metric)
    if found is None or found.low is None or found.high is None:
        return GateOutcome(gate, "failed", f"{gate}: failed, it was not measured", found)
    unit = " (+ is better)" if gate.metric == "accuracy" else " (+ is a lower loss, and better)"
    says = (
        f"{gate.metric} against {pair.baseline}: {found.value:+.3f} "
        f"{interval(found.low, found.high, '+')}{unit}"
    )
    limit = -gate.bound
    if found.low >= limit:
        return GateOutcome(gate, "passed", f"{says}, not worse by {gate.bound:g}", found)
    if found.high < limit:
        return GateOutcome(gate, "failed", f"{says}, worse by more than {gate.bound:g}", found)
    needed = samples_needed(lambda n: _pair_settled(pair, gate.metric, limit, n), found.n)
    return GateOutcome(
        gate,
        "undecided",
        f"{says}, may be worse by more than {gate.bound:g}: {_more(needed, found.n)}",
        found,
        needed,
    )


def _pair_settled(pair: Comparison, metric: str, limit: float, n: float) -> bool:
    """Whether `n` samples that behave like those we have would decide."""
    if metric == "accuracy":
        factor = n / pair.n
        low, high = paired_difference(pair.gained * factor, pair.lost * factor, n)
    else:
        spread = sqrt(pair.loss.squares / max(1, pair.loss.n - 1))
        half = Z * spread / sqrt(n)
        low, high = pair.loss.mean - half, pair.loss.mean + half
    return low >= limit or high < limit


def _more(needed: int | None, have: int) -> str:
    if needed is None:
        return f"no number of samples would tell, it is too close (there are {have:,})"
    return f"about {needed:,} samples would tell, there are {have:,}"
