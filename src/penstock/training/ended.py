"""A link to a run that finished: its last checkpoint and its models can be had, nothing changes."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, TypeVar, cast

from penstock.base.errors import Refused, from_dict
from penstock.jobs import forks
from penstock.jobs.link import Buffer
from penstock.jobs.pulse import Pulse
from penstock.jobs.stores import Stores
from penstock.jobs.work import Call
from penstock.meta import Writer
from penstock.records import Run
from penstock.training.diskonly import DiskOnly
from penstock.training.work import TrainingWork

T = TypeVar("T")


class EndedLink(DiskOnly):
    """Control and Link in one, as `Inline`, for reading only."""

    rank = 0
    world_size = 1
    local = (0, 1)
    generation = 0
    beside = False
    pulse = Pulse()

    def __init__(self, stores: Stores, run: Run) -> None:
        self.stores = stores
        self.run_id = run.id
        with stores.meta.read() as db:
            self.attempt = len(db.attempts(run.id))
        self._run = run
        self._work = TrainingWork(run)
        self._work.open(self)

    def payload(self) -> dict[str, Any]:
        return {**self._work.start(failures=0), "rank": 0, "world_size": 1}

    def commit(self, change: Callable[[Writer], T], alone: bool = False) -> T:
        """Only for what turns out to change nothing, such as data that was resolved before."""
        try:
            with self.stores.meta.read() as db:
                return change(cast(Writer, db))
        except AttributeError:
            raise self._over() from None

    def event(self, kind: str, body: dict[str, Any]) -> None: ...

    def reply(self, call: Call, payload: dict[str, Any]) -> None:
        raise self._over()

    def refuse(self, call: Call, error: dict[str, Any]) -> None:
        raise from_dict(error)

    def call(self, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
        answer = self._work.on_call(Call(0, 0, kind, payload))
        if answer is None:
            raise self._over()
        return answer

    def tell(self, kind: str, payload: dict[str, Any]) -> None: ...

    def buffers(self, size: int, least: int, count: int) -> list[Buffer]:
        raise self._over()

    def find_free(self, buffers: list[Buffer]) -> Buffer | None:
        raise self._over()

    def settle(self, buffers: list[Buffer]) -> None: ...

    def wait_free(self, buffers: list[Buffer]) -> Buffer:
        raise self._over()

    def hand(self, sidecar: str, buffer: Buffer, step: int, message: dict[str, Any]) -> None:
        raise self._over()

    def fork(self, name: str, entry: str, payload: dict[str, Any]) -> socket.socket:
        return forks.fork(name, entry, payload)

    def step_done(self, step: int) -> None:
        raise self._over()

    def save_at(self) -> int:
        return 0

    def drain_at(self) -> int:
        return 0

    def _over(self) -> Refused:
        return Refused(
            f'run "{self._run.name}" is finished, and does not change any more',
            "Look at run.finished first, or attach with fresh=True, or under another name.",
            run=self.run_id,
        )
