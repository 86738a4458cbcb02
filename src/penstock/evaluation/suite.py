"""A suite: which data, what is measured on it, in which slices, and what must hold.

Frozen and JSON-able: it is part of the key under which an evaluation is remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.records import Reference
from penstock.records.references import check_name

METRICS: dict[str, bool] = {"accuracy": True, "loss": False}  # name -> whether more is better


@dataclass(frozen=True, slots=True)
class Classification:
    """Accuracy and cross-entropy of a model that scores classes.

    label   integer column: the right class, 0..classes-1
    inputs  columns that go into the model; empty: those with the names of its inputs. Other names
            are taken in the order of the model's inputs
    output  the model's output with the scores, [B, classes]; None: its only one
    scores  "logits" (any numbers; softmax is taken) or "probabilities"
    """

    label: str
    inputs: tuple[str, ...] = ()
    output: str | None = None
    scores: Literal["logits", "probabilities"] = "logits"


@dataclass(frozen=True, slots=True)
class Gate:
    """A rule for the verdict. It decides on a bound of the interval, not on the value.

    at_least   the metric is at least `bound`
    not_worse  the metric is at most `bound` worse than the baseline's, on the same samples
    """

    kind: Literal["at_least", "not_worse"]
    metric: str
    bound: float

    def __str__(self) -> str:
        if self.kind == "at_least":
            return f"{self.metric} at least {self.bound:g}"
        return f"{self.metric} not worse by more than {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Suite:
    """name        for lists; two suites of one name are two suites when anything differs
    data        reference with a split, e.g. "digits:test"; resolved when it is evaluated
    metrics     what `classification(…)` returns
    slices      columns; each value gets its own metrics
    gates       what must hold; without any, nothing can be promoted on its evidence
    batch_size  rows that go through the model at once
    """

    name: str
    data: str
    metrics: Classification
    slices: tuple[str, ...] = ()
    gates: tuple[Gate, ...] = ()
    batch_size: int = 256

    def __post_init__(self) -> None:
        check_name(self.name, "suite name")
        Reference.parse(self.data)
        for name in ("slices", "gates"):
            value = getattr(self, name)
            if isinstance(value, str | Gate):
                value = (value,)
            object.__setattr__(self, name, tuple(value))
        if not isinstance(self.metrics, Classification):
            raise BadInput(
                f"metrics of suite {self.name} is a {type(self.metrics).__name__}",
                'Write metrics=classification(label="label", inputs=["image"]).',
            )
        if self.batch_size < 1:
            raise BadInput(f"batch_size is {self.batch_size}", "Use 1 or more.")


def classification(
    label: str = "label",
    inputs: Sequence[str] = (),
    output: str | None = None,
    scores: Literal["logits", "probabilities"] = "logits",
) -> Classification:
    """See `Classification`."""
    columns = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    return Classification(label, columns, output, scores)


def at_least(metric: str, bound: float) -> Gate:
    """Passes when the lower end of the metric's interval is `bound` or more."""
    _known(metric)
    if not METRICS[metric] or not 0 <= bound <= 1:
        raise BadInput(
            f'at_least("{metric}", {bound:g}) is no gate',
            'It takes a metric where more is better, and a rate: at_least("accuracy", 0.95).',
        )
    return Gate("at_least", metric, float(bound))


def not_worse(metric: str, margin: float) -> Gate:
    """Passes when the interval of the paired difference lies above `-margin`.

    margin  in units of the metric: 0.01 is one percentage point of accuracy
    """
    _known(metric)
    if not margin > 0:
        raise BadInput(
            f'not_worse("{metric}", margin={margin:g}) can never be shown',
            "Give it a margin above 0: the loss that you would not mind.",
        )
    return Gate("not_worse", metric, float(margin))


def _known(metric: str) -> None:
    if metric not in METRICS:
        raise BadInput(f'no metric "{metric}"', did_you_mean(metric, METRICS), metric=metric)
