"""The thread in rank 0's process that owns the run: lease, commits, answers, the run's end.

What `jobs.controller` is for ranks of our own; but it starts nothing, also not again, which is
the launcher's part.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from penstock.base import process
from penstock.base.errors import PenstockError, RunFailed
from penstock.jobs.holding import Holding
from penstock.jobs.stores import Stores
from penstock.jobs.work import Call
from penstock.meta import Writer
from penstock.records import Run
from penstock.records.runs import ENDED
from penstock.training import attempts
from penstock.training.follow import stopped, tell_events
from penstock.training.launched.exchange import Exchange
from penstock.training.launched.fates import Fate, Said, fate
from penstock.training.launched.link import NEWS, WORDS
from penstock.training.launched.watch import patience
from penstock.training.work import TrainingWork

T = TypeVar("T")
_TICK = 0.02  # seconds between two looks at what ranks sent
_LOOK = 0.1  # and at what others may want, and who is dead
_FAREWELL = 30.0  # seconds for which rank 0 waits for the others to hear of the end


class Owner:
    """`jobs.work.Control` for launched ranks. `open` in the caller's thread; then `start`.

    is_leaving  asked ten times a second: whether all are to save because a machine is going away
    """

    def __init__(
        self,
        stores: Stores,
        run: Run,
        exchange: Exchange,
        world_size: int,
        say: Callable[[str], None],
        is_leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self.stores = stores
        self.run_id = run.id
        self.attempt = 0
        self._work = TrainingWork(run)
        self._holding = Holding(stores, run.id)
        self._exchange = exchange
        self._world = world_size
        self._say = say
        self._is_leaving = is_leaving
        self._line = exchange
        self._thread: threading.Thread | None = None
        self._gone = threading.Event()
        self._read = [0] * world_size  # messages of each rank
        self._news = 0
        self._pids: dict[int, process.Identity] = {}
        self._said: dict[int, Said] = {}
        self._results: dict[int, dict[str, Any]] = {}
        self._byes: set[int] = set()
        self._next_look = 0.0
        self._save = False
        self._leave: str | None = None
        self._words = [0, 0]
        self._step = 0
        self._pace = 0.0  # steps a second
        self._stepped_at = time.monotonic()
        with stores.meta.read() as db:
            self._told = db.last_event()

    # -- Control --------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        return self._holding.generation

    def commit(self, change: Callable[[Writer], T], alone: bool = False) -> T:
        given = self._holding.commit(change, alone)
        self._told = tell_events(self.stores, self.run_id, self._told, self._say)
        return given

    def event(self, kind: str, body: dict[str, Any]) -> None:
        self.commit(lambda tx: tx.event(f"run/{self.run_id}", kind, body))

    def reply(self, call: Call, payload: dict[str, Any]) -> None:
        self._line.put(f"reply/{call.rank}/{call.id}", {"payload": payload})

    def refuse(self, call: Call, error: dict[str, Any]) -> None:
        self._line.put(f"reply/{call.rank}/{call.id}", {"error": error})

    # -- rank 0's own part ----------------------------------------------------------------------

    def open(self) -> dict[str, Any]:
        """Own the run. Returns what every rank needs to begin. Raises LeaseHeld, RunStopped, …"""
        found = self._holding.take()
        if found.state in ENDED:
            raise stopped(found)
        try:
            with self.stores.meta.read() as db:
                earlier = db.attempts(self.run_id)
            self.attempt = earlier[-1].number + 1 if earlier else 1
            self._work.open(self)
            payload = self._work.start(failures=0)
            number, generation, from_step = self.attempt, self.generation, self._work.committed()
            seconds = patience(self.stores, earlier, from_step)
            self.commit(lambda tx: attempts.begin(tx, self.run_id, number, generation, from_step))
        except BaseException:
            self._holding.release()
            raise
        told = {"run_id": self.run_id, "attempt": self.attempt, "generation": self.generation}
        return {**told, "payload": payload, "hang_seconds": seconds}

    def start(self) -> None:
        self._exchange.put(WORDS, self._words)
        line = self._exchange.another()
        self._thread = threading.Thread(
            target=self._run, args=(line,), name="penstock-owner", daemon=True
        )
        self._thread.start()

    def aim(self, step: int) -> list[int] | None:
        """At the end of a step of rank 0's: after which one all are to save, or to leave. Ranks
        that share gradients are at most one step ahead; others are given time by their pace."""
        now = time.monotonic()
        self._pace += 0.1 * (1 / max(now - self._stepped_at, 1e-6) - self._pace)
        self._step, self._stepped_at = step, now
        margin = 2 + int(0.1 * self._pace)
        words = list(self._words)
        if self._save:
            self._save, words[0] = False, step + margin
        if self._leave is not None and not words[1]:
            words[1] = step + margin
        if words == self._words:
            return None
        self._words = words
        return words

    def farewell(self) -> None:
        """Wait until all living ranks know the end, because the store ends with this process."""
        self._gone.wait(_FAREWELL)

    # -- the thread -----------------------------------------------------------------------------

    def _run(self, line: Exchange) -> None:
        self._line = line
        try:
            end = self._until_the_end()
        except PenstockError as error:  # the lease moved on, a store is gone, the disk is full
            end = {"error": error.as_dict()}
        except Exception as error:  # noqa: BLE001 - ranks wait for the end
            end = {"error": RunFailed(f"the run's owner failed: {error!r}", "").as_dict()}
        line.put("end", end)
        deadline = time.monotonic() + _FAREWELL
        while len(self._byes | self._dead()) < self._world and time.monotonic() < deadline:
            self._listen()
            time.sleep(_TICK)
        self._gone.set()

    def _until_the_end(self) -> dict[str, Any]:
        while True:
            self._listen()
            self._holding.renew()
            now = time.monotonic()
            if now >= self._next_look:
                self._next_look = now + _LOOK
                self._look()
                found = fate(self._said, self._dead(), self._world, now, self._leave)
                if found is not None:
                    return self._end(found)
            time.sleep(_TICK)

    def _listen(self) -> None:
        news = self._line.count(NEWS)
        if news == self._news:
            return
        for rank in range(self._world):
            while self._news < news and self._line.has(key := f"post/{rank}/{self._read[rank]}"):
                self._read[rank] += 1
                self._news += 1
                self._hear(rank, self._line.get(key, keep=False))

    def _hear(self, rank: int, message: dict[str, Any]) -> None:
        match message["kind"]:
            case "joined":
                self._pids[rank] = process.Identity.parse(message["pid"])
                if len(self._pids) == self._world:
                    pids = {str(r): each.pid for r, each in sorted(self._pids.items())}
                    self.event("gang.started", {"attempt": self.attempt, "pids": pids})
            case "call":
                self._answer(Call(rank, message["id"], message["call"], message["payload"]))
            case "tell":
                self._work.on_tell(rank, message["tell"], message["payload"])
            case "handed":
                self._work.on_handed(rank, message["step"])
            case "sidecar":
                self._work.on_sidecar(message["name"], message["body"])
            case "leave":
                self._leave = self._leave or "preempted"
            case "ended":
                self._ended(rank, message)
            case "bye":
                self._byes.add(rank)

    def _answer(self, call: Call) -> None:
        try:
            answer = self._work.on_call(call)
        except PenstockError as error:
            self.refuse(call, error.as_dict())
            return
        if answer is not None:
            self.reply(call, answer)

    def _ended(self, rank: int, message: dict[str, Any]) -> None:
        error = message.get("error")
        self._said[rank] = Said(message["how"], time.monotonic(), error)
        if error is not None:
            self._work.on_tell(rank, "raised", {"error": error})
        if "result" in message:
            self._results[rank] = message["result"]

    def _dead(self) -> set[int]:
        """Ranks that ended without a farewell, as far as it can be known from this machine."""
        return {
            rank
            for rank, each in self._pids.items()
            if rank not in self._byes and each.is_dead() is True
        }

    def _look(self) -> None:
        if self._work.tick([self._step] if self._step else []) or self._is_leaving():
            self._save = True
        with self.stores.meta.read() as db:
            run = db.get_run(self.run_id)
        if run.state == "stopping":
            self._leave = self._leave or "stopped on request"
        if self._step > run.step and time.monotonic() > self._next_write:
            self._next_write = time.monotonic() + 1.0
            self.commit(lambda tx: tx.change_run(self.run_id, step=self._step))

    _next_write = 0.0

    def _end(self, found: Fate) -> dict[str, Any]:
        result = self._work.finish(self._results) if found.outcome == "finished" else {}
        self._work.close()
        step = max(self._step, self._work.committed())
        lease = self._holding.lease
        if found.outcome == "preempted":
            self.event("run.preempted", {"why": "preempted"})
        run = self.commit(
            lambda tx: attempts.end(
                tx,
                self.run_id,
                self.attempt,
                lease,
                state=found.state,
                cause=found.cause,
                step=step,
                error=found.error,
                result=result,
            )
        )
        told: dict[str, Any] = {"outcome": found.outcome, "run": dataclasses.asdict(run)}
        if found.outcome == "died":
            told["error"] = RunFailed(
                f'run "{run.name}" was interrupted at step {run.step}: {found.cause}',
                "The launcher starts its ranks again, or you do; it goes on from its last "
                f"checkpoint, of step {self._work.committed()}.",
            ).as_dict()
        elif found.error is not None:
            told["error"] = found.error
        return told
