"""Asking neighbours for a shard, before the object store is asked.

For each shard the nodes have an order, the same for all of them (`ranking`). The first `_MOST`
neighbours in it are asked one after the other. Those before this node are also waited for while
they fetch the shard themselves; those behind it are not, so nobody waits in a circle. A neighbour
that fails (is gone, silent, wrong) is left alone for `_AWAY` seconds: it costs one call's deadline.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from penstock.base.errors import Unavailable
from penstock.base.log import facts, logger
from penstock.jobs.neighbours import VARIABLE
from penstock.jobs.neighbours.doors import Reading
from penstock.jobs.neighbours.ranking import ranked
from penstock.jobs.neighbours.reads import NotThere, NotYet, Reader

_MOST = 3  # neighbours that are asked for one shard
_AWAY = 30.0  # seconds for which one that failed is not asked
_WAIT = 1.0  # seconds for which a neighbour is asked to wait
_LONGEST = 5.0  # seconds in which it must have got it
_log = logger("data")


class Offer:
    """A neighbour's answer. bytes: of the file that it has. Nothing of it is verified yet."""

    def __init__(self, size: int, pieces: Iterator[bytes], fails: Callable[[str], None]) -> None:
        self.bytes = size
        self._pieces = pieces
        self._fails = fails

    def pieces(self) -> Iterator[bytes]:
        """In order, in all `bytes` of them. Raises Unavailable when they do not come."""
        return self._pieces

    def refuse(self, why: str) -> None:
        """It is no good: its neighbour is not asked for a while."""
        self._fails(why)


class Asking:
    """One process's. Safe for threads. Owns channels, which are closed when a neighbour goes.

    path  the file with the doors
    A fork of this process asks nobody: gRPC's threads are not in it.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._reading = Reading(path)
        self._clock = clock
        self._process = os.getpid()
        self._guard = threading.Lock()
        self._readers: dict[str, Reader] = {}
        self._away: dict[str, float] = {}  # until when
        self._said: set[tuple[str, str]] = set()

    def offers(self, shard: str, but: str = "") -> Iterator[Offer]:
        """What neighbours have of a file "v2/HEX.arrow", the likeliest first; to be taken or
        refused before the next is asked for.

        but  the name of the file into which it goes here, in case a neighbour sees this folder
        """
        if self._process != os.getpid():
            return
        for name, reader, wait in self._candidates(shard):
            try:
                about, pieces = self._begin(reader, {"shard": shard, "but": but}, wait)
            except (NotThere, NotYet):
                continue
            except Unavailable as error:
                self._fail(name, error.what)
                continue
            yield Offer(int(about["bytes"]), pieces, partial(self._fail, name))

    def _begin(
        self, reader: Reader, asked: dict[str, Any], wait: bool
    ) -> tuple[dict[str, Any], Iterator[bytes]]:
        """Asks again while the neighbour fetches it, if it is to be waited for."""
        until = self._clock() + _LONGEST
        while True:
            try:
                return reader.begin({**asked, "wait": _WAIT if wait else 0.0})
            except NotYet:
                if not wait or self._clock() > until:
                    raise

    def _candidates(self, shard: str) -> list[tuple[str, Reader, bool]]:
        """(name, reader, whether it is to be waited for)"""
        with self._guard:
            told = self._reading.now()
            self._forget_all_but(told.doors)
            order = ranked(shard, [told.mine, *told.doors])
            mine, now = order.index(told.mine), self._clock()
            able = [
                (place, name)
                for place, name in enumerate(order)
                if name != told.mine and self._away.get(name, now) <= now
            ]
            return [
                (name, self._reader(name, told.doors[name]), place < mine)
                for place, name in able[:_MOST]
            ]

    def _reader(self, name: str, door: Any) -> Reader:
        if name not in self._readers:
            self._readers[name] = Reader(door)
        return self._readers[name]

    def _forget_all_but(self, doors: Any) -> None:
        for name in [n for n, each in self._readers.items() if doors.get(n) != each.door]:
            self._readers.pop(name).close()
            self._away.pop(name, None)

    def _fail(self, name: str, why: str) -> None:
        with self._guard:
            self._away[name] = self._clock() + _AWAY
            first = (name, why) not in self._said
            self._said.add((name, why))
        if first:
            _log.warning("a neighbour is not asked for a while: %s", why, extra=facts(node=name))

    def close(self) -> None:
        with self._guard:
            for reader in self._readers.values():
                with suppress(Exception):
                    reader.close()
            self._readers.clear()


_mine: dict[str, Asking] = {}
_making = threading.Lock()


def asking() -> Asking | None:
    """This process's, where its agent has told it where neighbours are named; one for each file."""
    if not (path := os.environ.get(VARIABLE)):
        return None
    with _making:
        if path not in _mine:
            _mine[path] = Asking(Path(path))
        return _mine[path]
