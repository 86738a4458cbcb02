"""A launched rank's line to the owner of its run, and the thread that persists its parts.

Messages are numbered per rank, and a counter tells that there are new ones, so the owner's polling
costs the same however many ranks there are.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

from penstock.base.errors import PenstockError, Unavailable, from_dict
from penstock.blobs import Blobs
from penstock.checkpoints import handle
from penstock.jobs import forks
from penstock.jobs.link import Buffer
from penstock.jobs.pulse import Pulse
from penstock.training.diskonly import DiskOnly
from penstock.training.launched.exchange import Exchange
from penstock.training.launched.seat import Seat
from penstock.training.launched.watch import Watch

_BUFFERS = 2  # one is persisted while the next is filled
NEWS = "news"  # counts messages to the owner
WORDS = "words"  # steps after which all ranks are to save, and to leave; 0: none


class Post:
    """Messages of one rank to the owner, in order. Called by several threads, each with a
    connection of its own."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._sent = 0
        self._gate = threading.Lock()

    def send(self, line: Exchange, kind: str, body: dict[str, Any]) -> None:
        with self._gate:
            line.put(f"post/{self._rank}/{self._sent}", {"kind": kind, **body})
            self._sent += 1
            line.count(NEWS, 1)


class RankLink(DiskOnly):
    """See `jobs.link.Link`.

    beside  the writer is a thread of this process; it takes over as a sidecar does
    watch   for hangs; None: nobody watches
    aim     in rank 0: step -> the words, or None as long as they stay; called at each step's end
    """

    beside = True

    def __init__(
        self,
        exchange: Exchange,
        seat: Seat,
        begun: dict[str, Any],
        blobs: Blobs,
        aim: Callable[[int], list[int] | None] | None,
        watch: Watch | None,
    ) -> None:
        self.run_id: str = begun["run_id"]
        self.rank = seat.rank
        self.world_size = seat.world_size
        self.local = seat.local
        self.attempt: int = begun["attempt"]
        self.generation: int = begun["generation"]
        self.pulse = Pulse() if watch is None else watch.pulse
        self.leaving: str | None = None  # the signal that asks all ranks to save and leave
        self._line = exchange
        self._post = Post(seat.rank)
        self._writer = Writer(exchange, self._post, blobs, seat.rank, self.attempt)
        self._aim = aim
        self._watch = watch
        self._asked = 0
        self._words = [0, 0]
        self._told_leaving = False

    def call(self, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
        self._asked += 1
        self._send("call", id=self._asked, call=kind, payload=payload)
        answer = self._line.await_(f"reply/{self.rank}/{self._asked}", keep=False)
        if "error" in answer:
            raise from_dict(answer["error"])
        found: dict[str, Any] = answer["payload"]
        return found

    def tell(self, kind: str, payload: dict[str, Any]) -> None:
        self._send("tell", tell=kind, payload=payload)

    def buffers(self, size: int, least: int, count: int) -> list[Buffer]:
        return [Buffer(f"launched-{n}", memoryview(bytearray(size))) for n in range(_BUFFERS)]

    def find_free(self, buffers: list[Buffer]) -> Buffer | None:
        return next((buffer for buffer in buffers if buffer.free), None)

    def settle(self, buffers: list[Buffer]) -> None:
        self._writer.settle(buffers)

    def wait_free(self, buffers: list[Buffer]) -> Buffer:
        return self._writer.wait_free(buffers)

    def hand(self, sidecar: str, buffer: Buffer, step: int, message: dict[str, Any]) -> None:
        self._send("handed", step=step)
        self._writer.hand(sidecar, buffer, step, message)

    def fork(self, name: str, entry: str, payload: dict[str, Any]) -> socket.socket:
        return forks.fork(name, entry, payload)

    def step_done(self, step: int) -> None:
        """Read, after each step, where all ranks are to save or leave. Rank 0 writes it before its
        next step begins, and no rank can be through with that one without rank 0: so all see it
        at the end of the same step, or before."""
        if self._watch is not None:
            self._watch.step_done(step)
        if self.leaving is not None and not self._told_leaving:
            self._told_leaving = True
            self._send("leave", signal=self.leaving)
        if self._aim is None:
            self._words = self._line.get(WORDS)
        elif (words := self._aim(step)) is not None:
            self._words = words
            self._line.put(WORDS, words)

    def save_at(self) -> int:
        return self._words[0]

    def drain_at(self) -> int:
        return self._words[1]

    def joined(self, pid: str) -> None:
        self._send("joined", pid=pid)

    def bye(self) -> None:
        """This rank knows how the run ended, and needs nothing any more."""
        self._send("bye")
        if self._watch is not None:
            self._watch.close()

    def ended(self, how: str, **body: Any) -> dict[str, Any]:
        """Say how the function ended here, and wait for how the run did."""
        if self._watch is not None:
            self._watch.over()
        self._send("ended", how=how, **body)
        found: dict[str, Any] = self._line.await_("end")
        return found

    def _send(self, kind: str, **body: Any) -> None:
        self._post.send(self._line, kind, body)


class Writer:
    """A thread that turns filled buffers into blobs, one after the other."""

    def __init__(
        self, exchange: Exchange, post: Post, blobs: Blobs, rank: int, attempt: int
    ) -> None:
        self._handed: queue.SimpleQueue[tuple[Buffer, dict[str, Any]]] = queue.SimpleQueue()
        self._freed = threading.Condition()
        self._failed: PenstockError | None = None
        self._blobs = blobs
        self._rank = rank
        self._attempt = attempt
        self._post = post
        self._exchange = exchange
        self._thread: threading.Thread | None = None

    def hand(self, sidecar: str, buffer: Buffer, step: int, message: dict[str, Any]) -> None:
        buffer.free, buffer.handed = False, True
        body = {"slot": buffer.slot, "step": step, "rank": self._rank, "to": sidecar, **message}
        self._handed.put((buffer, body))
        if self._thread is None:
            line = self._exchange.another()
            self._thread = threading.Thread(
                target=self._work, args=(line,), name="penstock-writer", daemon=True
            )
            self._thread.start()

    def wait_free(self, buffers: list[Buffer]) -> Buffer:
        """Raises Unavailable when what was persisted can be told to nobody."""
        with self._freed:
            while not any(buffer.free for buffer in buffers):
                self._wait()
        return next(buffer for buffer in buffers if buffer.free)

    def settle(self, buffers: list[Buffer]) -> None:
        """Raises Unavailable likewise."""
        with self._freed:
            while any(buffer.handed for buffer in buffers):
                self._wait()

    def _wait(self) -> None:
        if self._failed is not None:
            raise self._failed
        self._freed.wait()

    def _work(self, line: Exchange) -> None:
        while self._failed is None:
            buffer, body = self._handed.get()
            try:
                done = handle(body, {buffer.slot: buffer.view}, self._blobs)
                answer = {"gang": self._attempt, "slot": buffer.slot, "extra": body["extra"]}
                self._post.send(line, "sidecar", {"name": body["to"], "body": {**answer, **done}})
            except PenstockError as error:
                self._failed = error
            except Exception as error:  # noqa: BLE001 - whoever waits for the buffer must hear of it
                self._failed = Unavailable(
                    f"the thread that persists checkpoints failed: {error!r}",
                    "The run goes on from its last checkpoint when it is started again.",
                )
            with self._freed:
                buffer.free, buffer.handed = True, False
                self._freed.notify_all()
