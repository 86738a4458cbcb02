"""How much room the cache takes, and what goes when it is full.

A builder reserves its bytes before it writes. The sum stands in the file `counters`, whose lock
also makes one process at a time evict. It may only be too high (a builder that was killed), never
too low for long; and whoever finds it too high counts the folder, which sets it right.

What goes first: files that nobody has open, by the time of their last use, which is the file's
access time, set when it is opened. `least_wanted` sets it far back: evict behind. A file that a
process has open may go only when its owner is gone, so that what is removed is also freed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from penstock.base.layout import Layout
from penstock.data.cache.counters import ROW, Counters, Tally, node_counters
from penstock.data.cache.ledger import change
from penstock.data.cache.locks import Locks

FORMAT = "v2"  # folder of shards as they are now
LIMIT = "limit"  # file beside the folder (`Layout.cache_limit`): what `cache_bytes` allows
QUOTAS = "quotas"  # folder beside it (`Layout.cache_quotas`): parts of single datasets
INDEXES = "samples"  # folder beside that of all shards (`Layout.samples`)
BUILDING = "building"  # folder of what is being written
INDEX_ENDING = ".v1"
_MOST_INDEXES = 256
_SHARE = 2  # by default the cache may take one half of what is free and its own
_INDEXES_SHARE = 4  # indexes of samples may take a quarter of the room
_LONG_AGO = 10**9 * 3600 * 24 * 365  # ns; so that among the least wanted the oldest goes first


class Space:
    """The room of one cache folder. Safe for threads and processes.

    limit  bytes; None: what the file `limit` beside the folder says, else a half of the disk's
           free space
    """

    def __init__(self, folder: Path, locks: Locks, tally: Tally, limit: int | None) -> None:
        self._folder = folder
        self._locks = locks
        self._tally = tally
        self._limit = limit

    @property
    def limit(self) -> int:
        if self._limit is None:
            self._limit = _allowed(self._folder, lambda: sum(size for _, size, _ in self._files()))
        return self._limit

    def reserve(self, size: int) -> bool:
        """Make room for a file of `size` bytes; False when there is none. Raises OSError."""
        room = self.limit - sum(each[1] for each in _indexes(self._folder.parent.parent / INDEXES))
        if size > room:
            return False
        granted = False

        def take(row: list[int]) -> list[int]:
            nonlocal granted
            used = row[0]
            if used < 0 or used + size > room:
                used = self._evict(room - size)
            granted = used + size <= room
            return [used + size if granted else used, *row[1:]]

        change(self._folder / "counters", ROW, take)
        return granted

    def give_back(self, size: int) -> None:
        """What was reserved was not used, or what was used is gone."""
        with suppress(OSError):
            path = self._folder / "counters"
            change(path, ROW, lambda row: [max(0, row[0] - size), *row[1:]])

    def _evict(self, room: int) -> int:
        """Remove what is least wanted until it all takes `room`; returns the bytes in use."""
        found = sorted(self._files())
        used = sum(size for _, size, _ in found)
        evicted = 0
        for _, size, path in found:
            if used - evicted <= room:
                break
            if self._may_go(path):
                path.unlink(missing_ok=True)
                evicted += size
        if evicted:
            self._tally.count(evicted=evicted)
        return used - evicted

    def _may_go(self, path: Path) -> bool:
        if path.suffix == ".tmp":  # NAME.arrow.ID.tmp: rubbish when nobody builds NAME
            return not self._locks.being_built(path.name.rsplit(".", 2)[0])
        return not self._locks.in_use(path.name)

    def _files(self) -> list[tuple[int, int, Path]]:
        """(last use in ns, bytes, path) of every file of shards, half-written ones included."""
        return [*_files(self._folder, ".arrow"), *_files(self._folder / BUILDING, ".tmp")]

    # what is wanted

    def wanted(self, path: Path) -> None:
        """Somebody opens it now."""
        self._set_used(path, time.time_ns())

    def least_wanted(self, path: Path) -> None:
        """Everybody is past it."""
        self._set_used(path, time.time_ns() - _LONG_AGO)

    def _set_used(self, path: Path, at: int) -> None:
        """The modification time stays: it is part of the proof that the file is whole."""
        with suppress(OSError):
            os.utime(path, ns=(at, path.stat().st_mtime_ns))


def _allowed(folder: Path, mine: Callable[[], int]) -> int:
    """What the file `limit` beside a folder says, else a half of what is free and `mine`."""
    with suppress(OSError, ValueError):
        return int((folder.parent / LIMIT).read_text())
    there = next(each for each in (folder, *folder.parents) if each.exists())
    disk = os.statvfs(there)
    return (disk.f_bavail * disk.f_frsize + mine()) // _SHARE


def counters_here(layout: Layout) -> Counters:
    """Of all processes that ever used a home's caches of shards, those of quotas among them."""
    folders = [layout.shards, *layout.cache_quotas.glob("*")]
    found = [node_counters(folder / FORMAT) for folder in folders]
    names = [each.name for each in fields(Counters)]
    return Counters(**{name: sum(getattr(each, name) for each in found) for name in names})


def room_for_index(folder: Path, size: int) -> bool:
    """Make room for an index of samples of `size` bytes in a folder: those that were opened longest
    ago go, so that all of them take a quarter of the cache. False where it does not fit alone."""
    found = sorted(_indexes(folder))
    shards = folder.parent / "shards" / FORMAT
    most = _allowed(shards, lambda: sum(each for _, each, _ in found)) // _INDEXES_SHARE
    if size > most:
        return False
    used = sum(each for _, each, _ in found)
    for count, (_, each, path) in enumerate(found):
        if used + size <= most and len(found) - count < _MOST_INDEXES:
            break
        path.unlink(missing_ok=True)
        used -= each
    return True


def _indexes(folder: Path) -> Iterator[tuple[int, int, Path]]:
    return _files(folder, INDEX_ENDING)


def _files(folder: Path, ending: str) -> Iterator[tuple[int, int, Path]]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.name.endswith(ending):
                    state = entry.stat()
                    yield state.st_atime_ns, state.st_size, Path(entry.path)
