"""From live state to a buffer that a sidecar persists, with as little on the step's path as can be.

What only `optimizer.step()` changes (parameters of tracked optimisers and their state) is copied
by a thread while the next step computes its gradients; a hook makes the optimiser wait for what is
left. All else is copied at once. Where such a tensor changed before the optimiser's step, the copy
is not used, and from then on this rank copies everything at once.

One copy serves two tiers. What was copied is sealed and stays in its slot, where the next gang
finds it when ranks die (memory); when a checkpoint is due the slot is handed to a sidecar as well
(disk).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

from penstock.checkpoints import Copy, Plan, plan, room, seal
from penstock.jobs.link import Buffer, Link
from penstock.training.copier import Copier, Job, Warming
from penstock.training.steady import steady

SIDECAR = "checkpoint"
_SLOTS = 3  # one is persisted, one is the newest that all ranks keep, one is filled

Tier = Literal["memory", "disk"]


class Saver:
    """One rank's.

    every_steps   between two checkpoints; None: when the agent says so
    memory_every  steps between two states that stay in memory; "auto": when the agent says so
    waiting       the context in which an optimiser waits for what is left of a copy
    """

    def __init__(
        self,
        link: Link,
        every_steps: int | None,
        memory_every: int | Literal["auto", "off"],
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._link = link
        self._waiting = waiting
        self._every = every_steps
        self._memory_every = memory_every if link.beside else "off"
        self._buffers: list[Buffer] = []
        self._last = -1
        self._optimizers: list[torch.optim.Optimizer] = []
        self._hooks: list[Any] = []
        self._copier = Copier()
        self._job: Job | None = None
        self._under_way: _Filling | None = None  # what the job fills
        self._careful = not link.beside
        self._again = False
        self._cramped = False  # a state had no room for its index behind it

    # -- the loop begins and ends ---------------------------------------------------------------

    def begin(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """From here on these optimisers wait for a copy that reads what they change."""
        self._optimizers = list(optimizers)
        for optimizer in self._optimizers:
            self._hooks.append(optimizer.register_step_pre_hook(lambda *_: self.finish()))
        if self._memory_every == "auto":
            self._link.pace()

    def end(self) -> None:
        """The loop is over, or was left: nothing is under way any more."""
        try:
            self.finish()
            self._join()
        finally:
            for hook in self._hooks:
                hook.remove()
            self._hooks.clear()
            self._optimizers.clear()
            self._copier.close()

    # -- saving ---------------------------------------------------------------------------------

    def prepare(self, shared: Any, own: Any) -> None:
        """Have memory for states like these, and its pages, before the first one is due."""
        if not self._link.beside or self._buffers:
            return
        self._make_room(plan(shared, own, self._link.rank, self._link.world_size))
        self._copier.begin(Warming([buffer.view for buffer in self._buffers]))

    def due(self, step: int) -> Tier | None:
        """Equal on all ranks: by the step's number, or because the agent asked for this step."""
        if self._again and self._link.world_size == 1:
            return "disk"  # nobody else need know
        by_number = self._every is not None and step % self._every == 0
        if by_number or self._link.save_at() == step:
            return "disk"
        if self._memory_every == "off":
            return None
        by_number = self._memory_every != "auto" and step % self._memory_every == 0
        return "memory" if by_number or self._link.keep_at() == step else None

    def save(
        self,
        step: int,
        shared: Any,
        own: Any,
        extra: dict[str, Any],
        tier: Tier = "disk",
        at_once: bool = False,
    ) -> None:
        """Copy, now or beside what follows; keep it, and hand it over where it is for the disk.

        at_once  all of it now: whoever asks must have exactly this step
        Where a state for memory alone finds no free slot, because disks are slow, it is left out.
        Raises CannotTravel, naming what has no stored form.
        """
        began = time.perf_counter()
        self.finish()
        self._join()
        wanted = plan(shared, own, self._link.rank, self._link.world_size)
        buffer = self._slot(wanted, wait=tier == "disk")
        if buffer is None or (tier == "memory" and not buffer.keeps):
            return
        filling = _Filling(self._link, wanted, buffer, step, extra if tier == "disk" else None)
        if at_once or self._careful or not self._optimizers:
            wanted.copy_into(buffer.view)
            filling.use(filling.sealed(time.perf_counter() - began))
        else:
            copy = Copy(wanted, buffer.view, later=steady(self._optimizers))
            copy.now()
            buffer.free = False
            self._job = Job(copy, filling.sealed, filling.use)
            self._under_way = filling
            self._copier.begin(self._job)
        if tier == "disk":
            self._last, self._again = step, False

    def saved(self, step: int) -> bool:
        return self._last == step

    def poll(self) -> None:
        """Let a copy that is complete be used, without waiting. Between two operations only."""
        if self._job is not None and self._job.good is None and self._job.copy.released:
            self.finish()

    def finish(self) -> None:
        """Return when nothing reads what an optimiser may change."""
        job = self._job
        if job is None or job.good is not None:
            return
        if not job.copy.released:
            with self._waiting():
                job.copy.release()
        self._judge(job)

    def _judge(self, job: Job) -> None:
        job.copy.release()  # also: a GPU's queue waits from here on
        changed = job.copy.changed()
        if job.speak(changed is None) or changed is None or self._under_way is None:
            return
        filling = self._under_way
        job.join()
        filling.buffer.free = True
        self._careful = True
        if filling.extra is not None:  # for the disk: the next step's is taken instead
            self._last, self._again = -1, True
        body = {"step": filling.step, "tensor": changed, "again": filling.extra is not None}
        self._link.tell("torn", body)

    def _join(self) -> None:
        job, filling = self._job, self._under_way
        self._job, self._under_way = None, None
        if job is not None:
            job.join()
        if filling is not None and filling.cramped:
            self._cramped = True

    def settle(self) -> None:
        """Wait until everything handed over is persisted."""
        self.finish()
        self._join()
        self._link.settle(self._buffers)

    def _slot(self, wanted: Plan, wait: bool) -> Buffer | None:
        """A free one, waiting for it if need be; larger ones when the state has grown."""
        if not self._buffers or self._cramped or self._buffers[0].view.nbytes < wanted.nbytes:
            self._link.settle(self._buffers)
            self._make_room(wanted)
        if wait:
            return self._link.wait_free(self._buffers)
        return self._link.find_free(self._buffers)

    def _make_room(self, wanted: Plan) -> None:
        size = room(wanted.index)
        least = size if self._cramped else wanted.nbytes
        count = 2 if self._memory_every == "off" else _SLOTS
        self._buffers = self._link.buffers(size, least, count)
        self._cramped = False


class _Filling:
    """What becomes of one slot once it is filled.

    extra    what goes to the sidecar with it; None: it goes to none
    cramped  it could not be sealed for want of room
    """

    def __init__(
        self, link: Link, plan: Plan, buffer: Buffer, step: int, extra: dict[str, Any] | None
    ) -> None:
        self.buffer, self.step, self.extra = buffer, step, extra
        self.cramped = False
        self._link, self._plan = link, plan
        self._seconds = 0.0

    def sealed(self, seconds: float) -> dict[str, Any] | None:
        """After the copy, which took so many seconds of a core; in any thread."""
        self._seconds = seconds
        if not self.buffer.keeps:
            return None
        began = time.thread_time()
        found = seal(self.buffer.view, self._plan.index)
        self.cramped = found is None
        self._seconds = seconds + time.thread_time() - began
        return found

    def use(self, mark: dict[str, Any] | None) -> None:
        """Once it is known that the copy is good."""
        if mark is not None:
            hands = self.extra is not None
            self._link.keep(self.buffer, self.step, mark, self._seconds, hands)
        if self.extra is not None:
            extra = {**self.extra, "seconds": self._seconds}
            message = {"index": self._plan.index, "extra": extra}
            self._link.hand(SIDECAR, self.buffer, self.step, message)
        elif mark is None:
            self.buffer.free = True
