"""From live state to a buffer that a sidecar persists: the only part that a step waits for."""

from __future__ import annotations

import time
from typing import Any

from penstock.checkpoints import plan
from penstock.jobs.link import Buffer, Link

SIDECAR = "checkpoint"
_SLOTS = 2  # one is persisted while the next is filled


class Saver:
    """One rank's. `stalled` adds up the seconds that steps waited."""

    def __init__(self, link: Link, every_steps: int | None) -> None:
        self._link = link
        self._every = every_steps
        self._buffers: list[Buffer] = []
        self._last = -1
        self.stalled = 0.0

    def is_due(self, step: int) -> bool:
        """Equal on all ranks: by the step's number, or because the agent asked for this step."""
        by_number = self._every is not None and step % self._every == 0
        return by_number or self._link.save_at() == step

    def save(self, step: int, shared: Any, own: Any, extra: dict[str, Any]) -> None:
        """Copy and hand over. Raises CannotTravel, naming what has no stored form."""
        began = time.perf_counter()
        wanted = plan(shared, own, self._link.rank, self._link.world_size)
        buffer = self._free(wanted.nbytes)
        wanted.copy_into(buffer.view)
        self._link.hand(SIDECAR, buffer, step, {"index": wanted.index, "extra": extra})
        self._last = step
        self.stalled += time.perf_counter() - began

    def saved(self, step: int) -> bool:
        return self._last == step

    def settle(self) -> None:
        """Wait until everything handed over is persisted."""
        waiting = [buffer for buffer in self._buffers if not buffer.free]
        for buffer in waiting:
            self._link.wait_free([buffer])

    def _free(self, size: int) -> Buffer:
        if not self._buffers or self._buffers[0].view.nbytes < size:
            self.settle()
            room = max(4096, -(-size * 5 // 4 // 4096) * 4096)  # states grow a little
            self._buffers = self._link.buffers(room, _SLOTS)
        return self._link.wait_free(self._buffers)
