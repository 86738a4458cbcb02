"""Shards that are wanted soon are brought to the node by threads, in the order in which they are
wanted, as far as there is room for them."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from penstock.base.log import facts, logger
from penstock.data.cache.node import NoRoom

THREADS = 4
_NAP, _LONGEST_NAP = 0.05, 1.0  # seconds between two looks for room
_QUICK, _REST = 0.002, 0.004  # seconds: what was here already is no reason to hold up the step
_log = logger("data")


class Ahead:
    """Owns its threads, which start when something is wanted and end with `close`.

    bring    brings the shard of a number; may take long. NoRoom: it is tried again. What else it
             raises is told in the log only, because whoever needs the shard will meet it again
    release  is given what `bring` gave when the shard was taken and used, or never will be
    room     how many bytes may be brought that nobody took yet
    size     bytes of the shard of a number

    Safe for threads; in a forked child it starts anew, without threads.
    """

    def __init__(
        self,
        bring: Callable[[int], str],
        release: Callable[[str], object],
        size: Callable[[int], int],
        room: int,
    ) -> None:
        self._bring, self._release, self._size, self._room = bring, release, size, room
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._queue: deque[int] = deque()
        self._at_work: set[int] = set()
        self._brought: dict[int, str] = {}
        self._threads: list[threading.Thread] = []
        self._ended = False

    def want(self, numbers: Iterable[int]) -> None:
        """These are wanted soon, in this order; what was asked for before stays before them."""
        if self._process != os.getpid():
            self._begin()
        with self._changed:
            known = {*self._queue, *self._at_work, *self._brought}
            self._queue.extend(n for n in dict.fromkeys(numbers) if n not in known)
            while not self._ended and len(self._threads) < min(THREADS, len(self._queue)):
                thread = threading.Thread(target=self._work, daemon=True, name="penstock-ahead")
                self._threads.append(thread)
                thread.start()
            self._changed.notify_all()

    def take(self, number: int) -> str:
        """Somebody takes this one now: waits while a thread is at it.

        returns  what `bring` gave, to be released once the shard is open; "" when it was not
                 brought
        """
        if self._process != os.getpid():
            self._begin()
        with self._changed:
            if number in self._queue:
                self._queue.remove(number)
            self._changed.wait_for(lambda: self._ended or number not in self._at_work)
            self._changed.notify_all()
            return self._brought.pop(number, "")

    def _work(self) -> None:
        nap = _NAP
        while (number := self._next()) is not None:
            held, began = "", time.monotonic()
            try:
                held = self._bring(number)
            except NoRoom:
                self._again(number, nap)
                nap = min(2 * nap, _LONGEST_NAP)
                continue
            except Exception as error:  # noqa: BLE001 - whoever takes it meets it again
                _log.debug("a shard was not brought", extra=facts(shard=number, why=repr(error)))
            nap = _NAP
            with self._changed:
                self._at_work.discard(number)
                self._brought[number] = held
                self._changed.notify_all()
                if time.monotonic() - began < _QUICK:
                    self._changed.wait_for(lambda: self._ended, _REST)

    def _again(self, number: int, nap: float) -> None:
        """Try later, or never when somebody takes it meanwhile."""
        with self._changed:
            self._at_work.discard(number)
            self._queue.appendleft(number)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ended, nap)

    def _next(self) -> int | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or (self._queue and self._has_room()))
            if self._ended:
                return None
            number = self._queue.popleft()
            self._at_work.add(number)
            return number

    def _has_room(self) -> bool:
        waiting = sum(map(self._size, (*self._brought, *self._at_work)))
        return waiting == 0 or waiting + self._size(self._queue[0]) <= self._room

    def close(self, *, wait: bool = True) -> None:
        """End the threads; with `wait` not before they are gone."""
        if self._process != os.getpid():
            return
        with self._changed:
            self._ended = True
            self._queue.clear()
            self._changed.notify_all()
        for thread in self._threads if wait else []:
            thread.join()
        with self._changed:
            while self._brought:
                self._release(self._brought.popitem()[1])
