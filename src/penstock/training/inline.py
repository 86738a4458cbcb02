"""workers=0: the whole run in the script's own process.

`breakpoint()` works, nothing watches the clock; a function of a notebook will do, which nobody
else can go on with. The same Run, the same work and the same commits as with ranks; the sidecar's
part is done between two steps. Owns the run's lease until it returns; nothing else is started.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any, TypeVar

from penstock.base.errors import PenstockError, RunStopped, from_dict
from penstock.checkpoints import handle
from penstock.jobs import forks
from penstock.jobs.claiming import Claiming
from penstock.jobs.holding import Holding
from penstock.jobs.link import Buffer
from penstock.jobs.pulse import Pulse
from penstock.jobs.stores import Stores
from penstock.jobs.work import Call
from penstock.meta import Writer
from penstock.records import Run
from penstock.records.runs import ENDED
from penstock.training import attempts
from penstock.training.diskonly import DiskOnly
from penstock.training.follow import stopped, tell_events
from penstock.training.work import TrainingWork

T = TypeVar("T")
_LOOK = 0.1  # seconds between two looks at what others may want


class Inline(DiskOnly):
    """Control and Link in one: the rank's questions go straight to the work."""

    rank = 0
    world_size = 1
    beside = False
    local = (0, 1)
    pulse = Pulse()  # nobody watches: a breakpoint may take its time

    def __init__(self, stores: Stores, run: Run, say: Callable[[str], None]) -> None:
        self.stores = stores
        self.run_id = run.id
        self._work = TrainingWork(run)
        self._holding = Holding(stores, run.id)
        self._claiming = Claiming(stores, run.id, self._holding.commit)
        self._say = say
        with stores.meta.read() as db:
            earlier = db.attempts(run.id)
            self._told = db.last_event()
        self.attempt = earlier[-1].number + 1 if earlier else 1
        self.generation = 0
        self._stopping = False
        self._next_look = 0.0
        self._replies: dict[int, dict[str, Any]] = {}
        self._calls = 0
        self._step = 0

    # -- Control --------------------------------------------------------------------------------

    def commit(self, change: Callable[[Writer], T], alone: bool = False) -> T:
        given = self._holding.commit(change, alone)
        self._told = tell_events(self.stores, self.run_id, self._told, self._say)
        return given

    def event(self, kind: str, body: dict[str, Any]) -> None:
        self.commit(lambda tx: tx.event(f"run/{self.run_id}", kind, body))

    def reply(self, call: Call, payload: dict[str, Any]) -> None:
        self._replies[call.id] = payload

    def refuse(self, call: Call, error: dict[str, Any]) -> None:
        raise from_dict(error)

    # -- Link -----------------------------------------------------------------------------------

    def call(self, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
        self._calls += 1
        answer = self._work.on_call(Call(0, self._calls, kind, payload))
        return answer if answer is not None else self._replies.pop(self._calls)

    def tell(self, kind: str, payload: dict[str, Any]) -> None:
        self._work.on_tell(0, kind, payload)

    def buffers(self, size: int, least: int, count: int) -> list[Buffer]:
        return [Buffer("inline", memoryview(bytearray(size)))]

    def wait_free(self, buffers: list[Buffer]) -> Buffer:
        return buffers[0]

    def find_free(self, buffers: list[Buffer]) -> Buffer | None:
        return buffers[0]

    def settle(self, buffers: list[Buffer]) -> None:
        """`hand` returns when all is done."""

    def hand(self, sidecar: str, buffer: Buffer, step: int, message: dict[str, Any]) -> None:
        body = {"slot": buffer.slot, "step": step, "rank": 0, **message}
        done = handle(body, {buffer.slot: buffer.view}, self.stores.blobs)
        answer = {"gang": self.attempt, "slot": buffer.slot, "extra": message["extra"], **done}
        self._work.on_sidecar(sidecar, answer)

    def fork(self, name: str, entry: str, payload: dict[str, Any]) -> socket.socket:
        return forks.fork(name, entry, payload)

    def step_done(self, step: int) -> None:
        self._step = step
        if self._holding.renew():
            self.commit(lambda tx: tx.change_run(self.run_id, step=step))
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK
            with self.stores.meta.read() as db:
                self._stopping = db.get_run(self.run_id).state == "stopping"

    def save_at(self) -> int:
        return self._step if self._work.tick([self._step]) else 0

    def drain_at(self) -> int:
        return self._step if self._stopping else 0

    # -- the run --------------------------------------------------------------------------------

    def run(self) -> Run:
        """Carry the run out. Its row tells how it ended, whatever is raised."""
        from penstock.training.rank import execute
        from penstock.training.run import Drained

        payload = self.begin()
        try:
            result = execute(self, payload)
        except PenstockError as error:
            self.raised(error)
            raise
        except Drained:
            raise self.drained() from None
        except KeyboardInterrupt:
            raise stopped(self.left("Ctrl-C")) from None
        except BaseException as error:  # sys.exit, say: the lease must not outlive the call
            self.left(type(error).__name__)
            raise
        return self.finished(result)

    def begin(self) -> dict[str, Any]:
        """Own the run; one of the four below ends it. Returns what the function's side needs."""
        found = self._holding.take()
        if found.state in ENDED:
            raise stopped(found)
        self.generation = self._holding.generation
        return {**self._open(), "rank": 0, "world_size": 1}

    def finished(self, result: dict[str, Any]) -> Run:
        return self._end("finished", "finished", result=self._work.finish({0: result}))

    def drained(self) -> RunStopped:
        return stopped(self._end("stopped", "stopped on request"))

    def raised(self, error: PenstockError) -> PenstockError:
        self._work.on_tell(0, "raised", {"error": error.as_dict()})
        self._end("failed", error.what, error=error.as_dict())
        return error

    def left(self, why: str) -> Run:
        """Ctrl-C, or an end of the script that is none of its run."""
        return self._end("stopped", why)

    def _open(self) -> dict[str, Any]:
        """All that comes before the function; the lease must not outlive a failure of it."""
        try:
            self._work.open(self)
            self._claim()
            claimed = self._claiming.payload()
            gpu = {"gpu": claimed["gpus"][0]} if claimed.get("gpus") else {}
            payload = {**self._work.start(failures=0), **claimed, **gpu}
            self._begin()
        except BaseException:
            self._holding.release()
            raise
        return payload

    def _claim(self) -> None:
        """Wait for a GPU, where this machine has one. Raises RunStopped when it is stopped, which
        Ctrl-C does too."""
        with self.stores.meta.read() as db:
            self._claiming.want(db.get_run(self.run_id).spec)
        try:
            going_on = self._claiming.wait(self._is_stopped)
        except KeyboardInterrupt:
            going_on = False
        if not going_on:
            raise stopped(self._end("stopped", "stopped on request"))

    def _is_stopped(self) -> bool:
        self._holding.renew()
        self._told = tell_events(self.stores, self.run_id, self._told, self._say)
        with self.stores.meta.read() as db:
            return db.get_run(self.run_id).state == "stopping"

    def _begin(self) -> None:
        number, generation, from_step = self.attempt, self.generation, self._work.committed()
        self.commit(lambda tx: attempts.begin(tx, self.run_id, number, generation, from_step))

    def _end(
        self,
        state: str,
        cause: str,
        error: dict[str, Any] | None = None,
        result: dict[str, Any] | None = None,
    ) -> Run:
        self._work.close()
        lease = self._holding.lease
        step = max(self._step, self._work.committed())
        return self.commit(
            lambda tx: attempts.end(
                tx,
                self.run_id,
                self.attempt,
                lease,
                state=state,
                cause=cause,
                step=step,
                error=error,
                result=result,
            )
        )
