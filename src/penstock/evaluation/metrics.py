"""From samples to metrics: what a unit adds up, how units are put together, what comes out.

Letters: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from penstock.evaluation.statistics import mean_interval, wilson

Array = npt.NDArray[Any]
NO_CLASS = -1  # predicted where the model's scores are not finite


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its 95 % interval, from `n` samples. None: the interval is unbounded."""

    value: float
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} {interval(self.low, self.high)}"


def interval(low: float | None, high: float | None, sign: str = "") -> str:
    """An interval for people.

    >>> interval(0.96412, 0.99199), interval(-0.01, 0.02, "+")
    ('[0.964, 0.992]', '[-0.010, +0.020]')
    """
    shown = ["?" if end is None else f"{end:{sign}.3f}" for end in (low, high)]
    return f"[{shown[0]}, {shown[1]}]"


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations, which can be put together exactly enough.

    Source of `joined`: Chan, Golub, LeVeque 1979, Updating formulae and a pairwise algorithm for
    computing sample variances.
    """

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: Array) -> Moments:
        """values  float64 [N]; those that are not finite are left out"""
        finite = values[np.isfinite(values)]
        if not len(finite):
            return cls()
        mean = float(finite.mean())
        return cls(len(finite), mean, float(((finite - mean) ** 2).sum()))

    def joined(self, other: Moments) -> Moments:
        n = self.n + other.n
        if not self.n or not other.n:
            return other if other.n else self
        gap = other.mean - self.mean
        mean = self.mean + gap * other.n / n
        squares = self.squares + other.squares + gap * gap * self.n * other.n / n
        return Moments(n, mean, squares)

    def estimate(self) -> Estimate:
        low, high = mean_interval(self.mean, self.squares, self.n)
        return Estimate(
            self.mean, low if isfinite(low) else None, high if isfinite(high) else None, self.n
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """What some samples of a classification add up to.

    correct  how many were predicted right
    loss     of those samples whose loss is finite
    """

    n: int = 0
    correct: int = 0
    loss: Moments = Moments()

    @classmethod
    def of(cls, correct: Array, loss: Array) -> Tally:
        """correct  bool [N]; loss  float64 [N]"""
        return cls(len(correct), int(correct.sum()), Moments.of(loss))

    def joined(self, other: Tally) -> Tally:
        return Tally(self.n + other.n, self.correct + other.correct, self.loss.joined(other.loss))

    def metrics(self) -> dict[str, Estimate]:
        """accuracy, and loss where any was finite."""
        low, high = wilson(self.correct, self.n)
        rate = self.correct / self.n if self.n else 0.0
        found = {"accuracy": Estimate(rate, low, high, self.n)}
        if self.loss.n:
            found["loss"] = self.loss.estimate()
        return found


def join(tallies: Iterable[Tally]) -> Tally:
    """All of them as one, in their order (so that the last digits do not depend on timing)."""
    whole = Tally()
    for each in tallies:
        whole = whole.joined(each)
    return whole


@dataclass(frozen=True, slots=True)
class Scored:
    """Samples after the model: predicted int64 [N], correct bool [N], score float32 [N] (the
    largest probability), loss float64 [N] (NaN or infinite where the scores were)."""

    predicted: Array
    correct: Array
    score: Array
    loss: Array


def score(
    scores: Array, labels: Array, kind: Literal["logits", "probabilities"] = "logits"
) -> Scored:
    """Predictions and losses; of equal scores the lowest class wins.

    scores  any float [N, C]
    labels  int64 [N] in 0..C-1
    """
    values = scores.astype(np.float64)
    sound = np.isfinite(values).all(axis=1)
    predicted = np.where(sound, values.argmax(axis=1), NO_CLASS)
    with np.errstate(all="ignore"):  # what is not finite is counted, not warned of
        if kind == "logits":
            values = values - values.max(axis=1, keepdims=True)
            values = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
            likely = np.exp(values.max(axis=1))
        else:
            likely = values.max(axis=1)
            values = np.log(values)
        loss = -np.take_along_axis(values, labels[:, None], axis=1)[:, 0]
    return Scored(
        predicted,
        predicted == labels,
        np.where(sound, likely, np.nan).astype(np.float32),
        np.where(sound, loss, np.nan) + 0.0,  # no negative zero
    )
