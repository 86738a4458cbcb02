"""NumPy batches as torch gives them to the step: no copy on the CPU; pinned and beside the step on
a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from penstock.data.pipeline.threads import Feeder, Ready


def to_torch(batch: Any) -> Any:
    """Arrays become tensors that share their memory; all else stays."""
    if type(batch) is dict:  # the usual case, and once per step
        return {name: _tensor(value) for name, value in batch.items()}
    return mapped(batch, _tensor)


@cache
def _from_numpy() -> Any:
    import torch

    return torch.from_numpy


def _tensor(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _from_numpy()(value) if value.dtype.kind in "biufc" else value
    return value if isinstance(value, list) else mapped(value, _leaf)


def _leaf(value: Any) -> Any:
    return _tensor(value) if isinstance(value, np.ndarray) else value


def mapped(value: Any, one: Callable[[Any], Any]) -> Any:
    """`one` of every leaf of dictionaries and tuples; a list of values stays a list."""
    if isinstance(value, dict | Mapping):  # dict first: it is the fast one
        return {name: mapped(each, one) for name, each in value.items()}
    if isinstance(value, tuple):
        found = [mapped(each, one) for each in value]
        return type(value)(*found) if hasattr(value, "_fields") else tuple(found)
    return one(value)


def moved(batch: Any, device: Any) -> Any:
    """Its tensors on a device, for a step that waits for them."""
    import torch

    return mapped(batch, lambda each: each.to(device) if isinstance(each, torch.Tensor) else each)


def pinned(batch: Any) -> Any:
    """Its tensors in memory that a GPU reads by itself."""
    import torch

    return mapped(batch, lambda each: each.pin_memory() if isinstance(each, torch.Tensor) else each)


class DeviceFeeder:
    """Gives an inner feeder's batches on a GPU.

    The copy runs on a stream of its own, so it overlaps with what the GPU still has to do of the
    step before; the step's own stream waits for it. `pin`: the inner feeder's are not pinned.
    """

    def __init__(self, inner: Feeder, device: Any, *, pin: bool) -> None:
        import torch

        self._inner, self._device, self._pin = inner, device, pin
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    @property
    def step(self) -> int:
        return self._inner.step

    def take(self) -> Ready:
        import torch

        ready = self._inner.take()
        batch = pinned(ready.batch) if self._pin else ready.batch
        now = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            batch = mapped(batch, self._copied)
        now.wait_stream(self._stream)

        def mark(value: Any) -> Any:  # its memory may be given out again only after this stream
            if isinstance(value, torch.Tensor):
                value.record_stream(now)
            return value

        return Ready(ready.step, mapped(batch, mark), ready.counts)

    def _copied(self, value: Any) -> Any:
        to = getattr(value, "to", None)
        return value if to is None else to(self._device, non_blocking=True)

    def close(self) -> None:
        self._inner.close()
