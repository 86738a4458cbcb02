"""Where a rank's seconds go, told as signals: per step as scalars, anything longer as spans.

What they add up to is understood elsewhere (`penstock.monitoring`). A step ends at the time at
which its scalars are told and took `penstock/step_seconds`, so steps follow each other without a
gap. What lies on the loop's path and is not every step's (an evaluation, a checkpoint) is a span;
that it began is told too, so that a rank that is killed inside it, or is still there, is known to
be. Clocks are read and memory is written, a few microseconds a step; nothing is computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch.nn.parallel import DistributedDataParallel

from penstock.jobs.pulse import Pulse
from penstock.jobs.words import CHECKPOINT, COMPUTE, EVALUATE, PUBLISH
from penstock.training.amounts import Amounts
from penstock.training.gauge import Gauge

T = TypeVar("T")
_SPANS = {
    CHECKPOINT: "penstock/checkpoint",
    EVALUATE: "penstock/evaluation",
    PUBLISH: "penstock/publishing",
}
_CPU = torch.device("cpu")
COMPARING = "penstock/comparing"
BEGAN, OVER = "penstock/began", "penstock/over"


class Accounts:
    """One rank's. `timed` and `step_done` belong to the loop, `during` to all else."""

    def __init__(self, emitter: Any, pulse: Pulse, device: torch.device = _CPU) -> None:
        self._gauge = Gauge(device, emitter, lambda: self._step)
        self.amounts = Amounts(emitter)
        self._emitter = emitter
        self._pulse = pulse
        self._step = 0
        self._began = 0.0
        self._waited = 0.0
        self._saving = 0.0
        self._standing: float | None = None  # in collective operations; None: nobody can know

    def exchanging(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call what may wait for other ranks. On a CPU such a wait is what the clock shows and the
        thread's own CPU time does not."""
        if self._standing is None:
            return function(*arguments)
        began, worked = time.perf_counter(), time.thread_time()
        given = function(*arguments)
        wall, work = time.perf_counter() - began, time.thread_time() - worked
        self._standing += max(0.0, wall - work)
        return given

    def watch(self, model: torch.nn.Module, device: torch.device) -> None:
        """From now on collective waits are told, where this model has any on a CPU: in backward,
        and where DDP gives rank 0's buffers to all before a forward."""
        if device.type != "cpu" or not isinstance(model, DistributedDataParallel):
            return
        self.collectives()
        if (sync := getattr(model, "_sync_buffers", None)) is not None:
            model._sync_buffers = partial(self.exchanging, sync)  # type: ignore[method-assign]

    def collectives(self) -> None:
        """From now on each step tells how long it stood in them."""
        self._standing = 0.0

    def timed(self, source: Iterable[Any], step: int) -> Iterator[Any]:
        """The source's items, with how long each was waited for. step: completed so far."""
        self._step = step
        self._gauge.begin()
        self._emitter.text(step, BEGAN, "steps")
        self._began = time.perf_counter()
        for item in source:
            self._waited = time.perf_counter() - self._began
            self._pulse.enter(COMPUTE)
            self.amounts.begin(item)
            yield item

    def step_done(self, step: int) -> None:
        """The step is complete with all that belongs to it: the next one begins now."""
        self.amounts.end(step)
        now = time.perf_counter()
        told = {
            "penstock/step_seconds": now - self._began,
            "penstock/checkpoint_seconds": self._saving,
        }
        if self._standing is not None:
            told["penstock/collective_seconds"] = self._standing
            self._standing = 0.0
        told["penstock/data_seconds"] = self._waited  # the last one: then the step is told
        self._emitter.scalars(step, told)
        self._step, self._began, self._waited, self._saving = step, now, 0.0, 0.0

    def over(self) -> None:
        """The loop came to its end, or was left."""
        self.amounts.leave()
        self._gauge.close()
        self._emitter.text(self._step, OVER, "steps")

    @contextmanager
    def during(self, phase: int) -> Iterator[None]:
        """A phase of the pulse as a span."""
        with self._pulse.during(phase), self.span(_SPANS[phase]):
            began = time.perf_counter()
            yield
            if phase == CHECKPOINT:
                self._saving += time.perf_counter() - began

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        began, counted = time.time(), self.amounts.counted()
        self._emitter.text(self._step, BEGAN, name)
        try:
            yield
        finally:
            self.amounts.put_aside(self.amounts.counted() - counted)
            self._emitter.span(name, began, time.time(), self._step)
