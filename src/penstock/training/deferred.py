"""Scalars that are told without waiting for a device.

A value on the CPU is told at once. A value on a GPU is copied to pinned memory behind the
computation, and told in a later step, when the copy's event says that it is there.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch


class Deferred:
    """In front of a `signals.Emitter`. One rank's; no thread."""

    def __init__(self, emitter: Any) -> None:
        self._emitter = emitter
        self._waiting: deque[tuple[int, str, torch.Tensor, torch.cuda.Event]] = deque()

    def tell(self, step: int, name: str, value: float | torch.Tensor) -> None:
        if isinstance(value, torch.Tensor) and value.device.type == "cuda":
            copy = torch.empty_like(value, device="cpu", pin_memory=True)
            copy.copy_(value, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            self._waiting.append((step, name, copy, event))
        else:
            self._emitter.scalar(step, name, float(value))

    def flush(self, wait: bool = False) -> None:
        """Tell what has arrived; with `wait` everything."""
        while self._waiting and (wait or self._waiting[0][3].query()):  # type: ignore[no-untyped-call]
            step, name, copy, event = self._waiting.popleft()
            event.synchronize()
            self._emitter.scalar(step, name, float(copy))


def known(last: Mapping[str, tuple[int, Any]]) -> dict[str, float]:
    """Of the newest values, name -> (step, value), those that need no waiting for a device."""
    found = {}
    for name, (_, value) in last.items():
        if isinstance(value, torch.Tensor):
            if value.device.type != "cpu":
                continue
            value = float(value)
        if math.isfinite(value):
            found[name] = value
    return found
