"""What a loop tells of its steps, in numbers, and which of them was the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.training.deferred import Deferred, known
from penstock.training.micro import Means, MicroBatches


class Scalars:
    """One rank's. Steps are those that are completed with what is told: the one at hand, counted.

    best      metric -> its best value, over all attempts
    best_now  the metric that was never better than in the step at hand
    """

    def __init__(self, emitter: Any) -> None:
        self.best: dict[str, float] = {}
        self.best_now: str | None = None
        self._deferred = Deferred(emitter)
        self._last: dict[str, tuple[int, Any]] = {}
        self._means = Means()

    def log(
        self, step: int, values: Mapping[str, float | torch.Tensor], micro: MicroBatches | None
    ) -> None:
        """With micro-batches, at the last one of the step: the mean over them."""
        if micro is not None:
            self._means.add(values)
            if not micro.last:
                return
            values = self._means.take(list(values))
        self.tell(step, values)

    def tell(self, step: int, values: Mapping[str, float | torch.Tensor]) -> None:
        for name, value in values.items():
            number = value.detach() if isinstance(value, torch.Tensor) else float(value)
            self._last[name] = (step, number)
            self._deferred.tell(step, name, number)

    def end_step(self, step: int) -> None:
        """Tell what only earlier micro-batches of it told, and what has arrived from devices."""
        if self._means.some:
            self.tell(step, self._means.take())
        self._deferred.flush()

    def settle(self) -> None:
        """Wait until all is told."""
        self._deferred.flush(wait=True)

    def keep_best(self, step: int, name: str, larger: bool) -> bool:
        """Whether the metric is the best so far; then it is remembered. Raises BadInput."""
        told_in, value = self._last.get(name, (-1, math.nan))
        if told_in != step:
            fix = did_you_mean(name, self._last) if name not in self._last else "Log it first."
            raise BadInput(f'"{name}" was not logged in this step', fix)
        number = float(value)
        best = self.best.get(name)
        if math.isnan(number) or (best is not None and not _better(number, best, larger)):
            return False
        self.best[name] = number
        self.best_now = name
        return True

    def known(self) -> dict[str, float]:
        """The newest values of those that need no waiting for a device."""
        return known(self._last)


def _better(new: float, old: float, larger: bool) -> bool:
    return new > old if larger else new < old
