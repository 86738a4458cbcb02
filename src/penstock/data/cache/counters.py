"""What a cache did, per process and per node."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from penstock.data.cache.ledger import change, look

_EVERY = 2.0  # seconds between two additions of a busy process to the node's counters


@dataclass(slots=True)
class Counters:
    """hits           openings of a shard that was there, as a blob in place or in the cache
    misses         openings that had to fetch it
    fetched        bytes read from the blob store
    evicted        bytes removed from the cache to make room
    stalls         times that a batch had to wait for a shard
    stalled_ns     nanoseconds of that
    near           bytes read from the caches of other nodes
    refused        answers of other nodes that were not used: wrong, torn or late
    """

    hits: int = 0
    misses: int = 0
    fetched: int = 0
    evicted: int = 0
    stalls: int = 0
    stalled_ns: int = 0
    near: int = 0  # after the others: files of earlier versions have no place for it
    refused: int = 0


_NAMES = [each.name for each in fields(Counters)]
ROW = 1 + len(_NAMES)  # of the file: bytes in use, then the counters


class Tally:
    """Counts for this process and adds to the node's file now and then. Safe for threads.

    What was not added yet is lost when the process is killed; `flush` adds it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._total = Counters()
        self._told = Counters()
        self._next = 0.0

    def count(self, **more: int) -> None:
        """Count; the node hears of it later."""
        with self._guard:
            for name, value in more.items():
                setattr(self._total, name, getattr(self._total, name) + value)

    def add(self, **more: int) -> None:
        """Count, and tell the node when it was not told for a while."""
        self.count(**more)
        if time.monotonic() >= self._next:
            self.flush()

    def flush(self) -> None:
        """Add what is new to the node's counters; where they cannot be written, not."""
        self._next = time.monotonic() + _EVERY
        with self._guard:
            news = [getattr(self._total, n) - getattr(self._told, n) for n in _NAMES]
            if not any(news):
                return
            for name, value in zip(_NAMES, news, strict=True):
                setattr(self._told, name, getattr(self._told, name) + value)
        with suppress(OSError):
            change(
                self._path, ROW, lambda row: [a + b for a, b in zip(row, [0, *news], strict=True)]
            )

    def mine(self) -> Counters:
        """Of this process."""
        with self._guard:
            return Counters(*(getattr(self._total, name) for name in _NAMES))


def node_counters(folder: Path) -> Counters:
    """Of all processes that ever used the cache in `folder`, as far as they have said."""
    return Counters(*look(folder / "counters", ROW)[1:])
