"""Locks of the node's processes: any number of names, one file, freed by the kernel at death.

A name is a byte range of the file `locks`, taken as an open-file-description lock (Linux fcntl(2),
F_OFD_SETLK): so threads exclude each other too, and closing one handle frees nothing of another.
A name has two bytes: one is held exclusively by who builds its file, the other shared by every
process that has the file open. Nothing depends on them for safety; they save work and disk.

Where such locks do not exist (macOS) nobody excludes anybody, which is allowed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_SET = getattr(fcntl, "F_OFD_SETLK", None)
_GET = getattr(fcntl, "F_OFD_GETLK", None)
_FLOCK = struct.Struct("@hhqqi0q")  # type, whence, start, length, pid: struct flock
_HELD = {errno.EAGAIN, errno.EACCES}
_FIRST_NAP, _LONGEST_NAP = 0.002, 0.02  # seconds


def _place(name: str) -> int:
    """The first of a name's two bytes; two names that meet delay each other, no more."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little") * 2


def _try(handle: int, kind: int, place: int) -> bool:
    if _SET is None:
        return True
    try:
        fcntl.fcntl(handle, _SET, _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0))
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise
    return True


class Locks:
    """The locks of one folder. Safe for threads; opened anew in a child after a fork.

    Owns one file descriptor while something is held open, none otherwise.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "locks"
        self._guard = threading.Lock()
        self._open: Counter[str] = Counter()
        self._handle = -1
        self._process = os.getpid()

    @contextmanager
    def building(
        self,
        name: str,
        *,
        wait: bool,
        moved: Callable[[], object],
        patience: float,
        now: Callable[[], float] = time.monotonic,
    ) -> Iterator[bool]:
        """Be the only one who builds `name`; the value says whether the lock is ours.

        wait      False: give up at once when somebody else has it
        moved     changes while its holder gets on; after `patience` seconds without a change the
                  block runs without the lock
        """
        handle = self._new_handle()
        try:
            yield self._take(handle, _place(name), wait, moved, patience, now)
        finally:
            _try(handle, fcntl.F_UNLCK, _place(name))  # a child of a fork may have the handle, too
            os.close(handle)

    def _take(
        self,
        handle: int,
        place: int,
        wait: bool,
        moved: Callable[[], object],
        patience: float,
        now: Callable[[], float],
    ) -> bool:
        nap, seen, since = _FIRST_NAP, moved(), now()
        while not _try(handle, fcntl.F_WRLCK, place):
            if not wait:
                return False
            if (found := moved()) != seen:
                seen, since = found, now()
            if now() - since >= patience:
                return False
            time.sleep(nap)
            nap = min(2 * nap, _LONGEST_NAP)
        return True

    def hold(self, name: str) -> None:
        """Say that this process has the file open, as often as `let_go` will be called."""
        with self._guard:
            self._in_this_process()
            if self._handle < 0:
                self._handle = self._new_handle()
            self._open[name] += 1
            if self._open[name] == 1:
                _try(self._handle, fcntl.F_RDLCK, _place(name) + 1)

    def let_go(self, name: str) -> None:
        with self._guard:
            self._in_this_process()
            if name not in self._open:  # held by the process that forked this one
                return
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]
                _try(self._handle, fcntl.F_UNLCK, _place(name) + 1)
            if not self._open:
                os.close(self._handle)
                self._handle = -1

    def in_use(self, name: str) -> bool:
        """Whether any process of the node has the file open, this one included."""
        return name in self._open if _GET is None else self._is_held(_place(name) + 1)

    def being_built(self, name: str) -> bool:
        """Whether anybody builds the file now."""
        return self._is_held(_place(name))

    def _is_held(self, place: int) -> bool:
        if _GET is None:
            return False
        handle = self._new_handle()
        try:
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
            kind: int = _FLOCK.unpack(fcntl.fcntl(handle, _GET, asked))[0]
            return kind != fcntl.F_UNLCK
        finally:
            os.close(handle)

    def _in_this_process(self) -> None:
        """A forked child shares its parent's handle; letting go would free the parent's locks."""
        if self._process != os.getpid():
            if self._handle >= 0:
                os.close(self._handle)
            self._handle, self._process = -1, os.getpid()
            self._open = Counter()

    def _new_handle(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
