"""How much is in a step: samples, tokens, FLOPs. Told when it changes, so that even steps cost
nothing; what it means per second is computed by whoever reads it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch

from penstock.base.errors import BadInput
from penstock.training.micro import rows_of

Dtype = Literal["bfloat16", "float16", "tf32", "float32"]


class Amounts:
    """One rank's. `tokens` counts those of a batch as this rank gets it, and may be None."""

    def __init__(self, emitter: Any) -> None:
        self.tokens: Callable[[Any], int] | None = None
        self._emitter = emitter
        self._told: dict[str, float] = {}
        self._now: dict[str, float] = {}
        self._count = False
        self._counter: Any = None
        self._aside = 0  # FLOPs of what lies within the step and is not part of it

    def begin(self, batch: Any) -> None:
        """A step begins with this batch."""
        rows = rows_of(batch)
        if rows is not None:
            self._now["penstock/samples"] = rows
        if self.tokens is not None:
            self._now["penstock/tokens"] = self.tokens(batch)
        if self._count:
            from torch.utils.flop_counter import FlopCounterMode

            self._count, self._aside = False, 0
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()

    def end(self, step: int) -> None:
        """The step is complete."""
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self._now["penstock/flops"] = self.counted() - self._aside
            self._counter = None
        if self._now != self._told:
            changed = {k: v for k, v in self._now.items() if self._told.get(k) != v}
            self._emitter.scalars(step, changed)
            self._told = dict(self._now)

    def leave(self) -> None:
        """The loop was left, also in the middle of a step: nothing counts any more."""
        if self._counter is not None:
            self._counter.__exit__(None, None, None)
            self._counter = None

    def counted(self) -> int:
        """FLOPs of the step at hand so far; 0 where nobody counts."""
        return 0 if self._counter is None else int(self._counter.get_total_flops())

    def put_aside(self, flops: int) -> None:
        """These belong to an evaluation, say, and not to the step."""
        self._aside += flops

    def flops(
        self,
        per_step: float | Literal["count"],
        world_size: int,
        device: torch.device,
        dtype: Dtype | None,
    ) -> None:
        """See `Run.flops`. Raises BadInput."""
        if per_step == "count":
            self._count = True
        elif isinstance(per_step, str) or not (math.isfinite(per_step) and per_step > 0):
            raise BadInput(
                f"run.flops({per_step!r}) is no number of operations",
                'Give the FLOPs of one step of all ranks together, or "count".',
            )
        else:
            self._now["penstock/flops"] = per_step / world_size
        self._emitter.text(0, "penstock/device", f"{_name(device)}|{dtype or _dtype()}")


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _dtype() -> Dtype:
    """In which products are computed unless the function says otherwise."""
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "float32"
