"""From live state to a buffer that a sidecar persists, with as little on the step's path as can be.

What only `optimizer.step()` changes (parameters of tracked optimisers and their state) is copied
by a thread while the next step computes its gradients; a hook makes the optimiser wait for what is
left. All else is copied at once. Where such a tensor changed before the optimiser's step, the copy
is not used, and from then on this rank copies everything at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch

from penstock.checkpoints import Copy, plan
from penstock.jobs.link import Buffer, Link
from penstock.training.copier import Copier, Job
from penstock.training.steady import steady

SIDECAR = "checkpoint"
_SLOTS = 2  # one is persisted while the next is filled


class Saver:
    """One rank's.

    waiting  the context in which an optimiser waits for what is left of a copy
    """

    def __init__(
        self,
        link: Link,
        every_steps: int | None,
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._link = link
        self._waiting = waiting
        self._every = every_steps
        self._buffers: list[Buffer] = []
        self._last = -1
        self._optimizers: list[torch.optim.Optimizer] = []
        self._hooks: list[Any] = []
        self._copier = Copier()
        self._job: Job | None = None
        self._under_way: tuple[int, Buffer] | None = None  # step and buffer of the job
        self._careful = not link.beside
        self._again = False

    # -- the loop begins and ends ---------------------------------------------------------------

    def begin(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """From here on these optimisers wait for a copy that reads what they change."""
        self._optimizers = list(optimizers)
        for optimizer in self._optimizers:
            self._hooks.append(optimizer.register_step_pre_hook(lambda *_: self.finish()))

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

    def is_due(self, step: int) -> bool:
        """Equal on all ranks: by the step's number, or because the agent asked for this step."""
        if self._again and self._link.world_size == 1:
            return True  # nobody else need know
        by_number = self._every is not None and step % self._every == 0
        return by_number or self._link.save_at() == step

    def save(
        self, step: int, shared: Any, own: Any, extra: dict[str, Any], at_once: bool = False
    ) -> None:
        """Copy, now or beside what follows, and hand over.

        at_once  all of it now: whoever asks must have exactly this step
        Raises CannotTravel, naming what has no stored form.
        """
        self.finish()
        self._join()
        wanted = plan(shared, own, self._link.rank, self._link.world_size)
        buffer = self._free(wanted.nbytes)

        def use(index: dict[str, Any]) -> None:
            self._link.hand(SIDECAR, buffer, step, {"index": index, "extra": extra})

        if at_once or self._careful or not self._optimizers:
            wanted.copy_into(buffer.view)
            use(wanted.index)
        else:
            copy = Copy(wanted, buffer.view, later=steady(self._optimizers))
            copy.now()
            buffer.free = False
            self._job, self._under_way = Job(copy, lambda: wanted.index, use), (step, buffer)
            self._copier.begin(self._job)
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
        step, buffer = self._under_way
        job.join()
        buffer.free = True
        self._last, self._careful, self._again = -1, True, True
        self._link.tell("torn", {"step": step, "tensor": changed})

    def _join(self) -> None:
        job, self._job, self._under_way = self._job, None, None
        if job is not None:
            job.join()

    def settle(self) -> None:
        """Wait until everything handed over is persisted."""
        self.finish()
        self._join()
        waiting = [buffer for buffer in self._buffers if not buffer.free]
        for buffer in waiting:
            self._link.wait_free([buffer])

    def _free(self, size: int) -> Buffer:
        if not self._buffers or self._buffers[0].view.nbytes < size:
            self.settle()
            room = max(4096, -(-size * 5 // 4 // 4096) * 4096)  # states grow a little
            self._buffers = self._link.buffers(room, _SLOTS)
        return self._link.wait_free(self._buffers)
