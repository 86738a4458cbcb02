"""Batches ahead of the step, made by threads of this process.

One thread at a time picks the next batches, all of them work at their own, and the consumer takes
them in order; so the result does not depend on how many there are. Small batches are made several
at once: what passes between threads is then a list, and costs little per batch.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from penstock.data.pipeline.collate import weight
from penstock.data.pipeline.plan import Counts, Picks, Plan

AHEAD_BYTES = 64 << 20
_CHUNK_BYTES = 4 << 20  # batches smaller than this are made several at once
_MOST_AT_ONCE = 64
_PATIENCE = 10.0  # seconds that a thread may take to end; the user's map may be at work


class Ready(NamedTuple):
    """One batch, and what a mixture's sources have given with it."""

    step: int
    batch: Any
    counts: Counts


class Feeder(Protocol):
    """Gives the batches of consecutive steps. Owns whatever makes them until `close`."""

    @property
    def step(self) -> int:
        """Of the batch that `take` gives next."""
        ...

    def take(self) -> Ready:
        """The next batch. Raises what making it raised. Asked only while there is one."""
        ...

    def close(self) -> None: ...


class Sizes:
    """How many batches to make at once, learnt from those that were made.

    limit  bytes that may be made ahead; a piece takes a fourth of it at most
    """

    def __init__(self, limit: int, singly: bool) -> None:
        self._limit, self._singly = limit, singly
        self.of_batch = 0  # bytes, of the last one weighed

    @property
    def at_once(self) -> int:
        if self._singly or not self.of_batch:
            return 1
        piece = min(_CHUNK_BYTES, self._limit // 4)
        return max(1, min(_MOST_AT_ONCE, piece // self.of_batch))

    def learn(self, batch: Any) -> None:
        self.of_batch = max(1, weight(batch))


class HereFeeder:
    """threads=0: each batch is made when it is asked for, by who asks."""

    def __init__(self, plan: Plan, make: Callable[[Picks], list[Any]], first: int) -> None:
        self._plan, self._make = plan, make
        self.step = first

    def take(self) -> Ready:
        picks = self._plan.picks(self.step, 1)
        (batch,) = self._make(picks)
        self.step += 1
        return Ready(self.step - 1, batch, picks.counts[0] if picks.counts else ())

    def close(self) -> None: ...


class ThreadFeeder:
    """threads >= 1. Owns its threads, which end with `close`. They start when the first batch was
    made by who asked for it: nobody waits for a thread that only starts.

    make         picks -> their batches; called by several threads at the same time
    last         the step after the last; None: without end
    ahead_bytes  about how much may be made and not taken yet; one batch always may
    """

    def __init__(
        self,
        plan: Plan,
        make: Callable[[Picks], list[Any]],
        first: int,
        last: int | None,
        *,
        threads: int,
        ahead_bytes: int,
        singly: bool,
    ) -> None:
        self._plan, self._make = plan, make
        self._last, self._limit = last, ahead_bytes
        self.step = first
        self._sizes = Sizes(ahead_bytes, singly)
        self._turn = threading.Lock()  # held while the next batches are picked
        self._changed = threading.Condition()
        self._made: dict[int, list[Ready] | BaseException] = {}
        self._taken: list[Ready] = []  # of the piece in hand, last first
        self._next_step, self._next_piece, self._wanted = first, 0, 0
        self._ahead = 0  # batches picked and not taken
        self._ended = False
        self._threads = [
            threading.Thread(target=self._run, daemon=True, name="penstock-batches")
            for _ in range(threads)
        ]
        self._started = False

    def take(self) -> Ready:
        if not self._started:
            return self._first()
        if not self._taken:
            self._taken = self._next()
            self._taken.reverse()
        self.step += 1
        return self._taken.pop()

    def _first(self) -> Ready:
        picks = self._plan.picks(self.step, 1)
        (batch,) = self._make(picks)
        self._sizes.learn(batch)
        self.step += 1
        self._next_step = self.step
        self._started = True
        for thread in self._threads:
            thread.start()
        return Ready(self.step - 1, batch, picks.counts[0] if picks.counts else ())

    def _next(self) -> list[Ready]:
        with self._changed:
            while self._wanted not in self._made:
                self._changed.wait()
            found = self._made.pop(self._wanted)
            self._wanted += 1
            if isinstance(found, BaseException):
                self._ended = True
                raise found
            self._ahead -= len(found)
            self._changed.notify_all()
        return found

    def _run(self) -> None:
        while True:
            with self._turn:
                if not (count := self._may()):
                    return
                piece, self._next_piece = self._next_piece, self._next_piece + 1
                try:
                    picks = self._plan.picks(self._next_step, count)
                except Exception as error:  # noqa: BLE001 - it is the consumer's
                    self._put(piece, error)
                    return
                self._next_step += len(picks)
                with self._changed:
                    self._ahead += len(picks)
            try:
                batches = self._make(picks)
            except BaseException as error:  # noqa: BLE001 - it is the consumer's
                self._put(piece, error)
                return
            counts = picks.counts or [()] * len(batches)
            steps = range(picks.first, picks.first + len(batches))
            self._put(piece, [Ready(*each) for each in zip(steps, batches, counts, strict=True)])

    def _may(self) -> int:
        """Wait until there is room for more; how many batches to make then. 0: that is all."""
        left = _MOST_AT_ONCE if self._last is None else self._last - self._next_step

        def room() -> bool:
            ahead = (self._ahead + self._sizes.at_once) * self._sizes.of_batch
            return self._ended or self._ahead == 0 or 0 < ahead <= self._limit

        with self._changed:
            if left > 0:
                self._changed.wait_for(room)
            return 0 if self._ended else max(0, min(left, self._sizes.at_once))

    def _put(self, piece: int, found: list[Ready] | BaseException) -> None:
        with self._changed:
            if isinstance(found, list) and found:
                self._sizes.learn(found[0].batch)
            self._made[piece] = found
            self._changed.notify_all()

    def close(self) -> None:
        if sys.is_finalizing():
            return  # threads have stopped wherever they were, with the locks that they hold
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        for thread in self._threads if self._started else ():
            thread.join(_PATIENCE)
        self._made.clear()
        self._taken.clear()
