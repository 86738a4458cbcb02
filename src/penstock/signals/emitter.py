"""The writing side: a rank tells, and goes on.

An emit is one copy into a memory-mapped, preallocated file: no system call, no lock that anybody
holds for long, no sync, no thread. Every 29,000 scalars a new segment is made, which costs a few
system calls. The kernel may hold a copy up where it writes that very page out at that moment.

Storage that fails never reaches the training step: the emitter drops, counts, says so once, and
tries again every few seconds. The file is preallocated because a full disk would otherwise show
itself as SIGBUS in the middle of a step.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path

from penstock.base.errors import BadInput
from penstock.base.log import facts, logger
from penstock.base.process import Identity
from penstock.signals import segment
from penstock.signals.segment import FRAME, NUMBERS, Head

_log = logger("signals")
_RETRY = 5.0  # seconds between attempts while nothing can be written
_NEVER = -math.inf


class Emitter:
    """Scalars, spans and texts of one rank in one generation. Safe for threads; not over a fork.

    folder      of the run's segments (`Layout.signals`); made when missing
    run_id, rank, generation
                whose signals these are
    segment_bytes
                size of one file, allocated in full when it is made

    Owns its segment files until `close` or its death; nobody else writes them. A forked child
    gets a closed emitter. `dropped` counts what could not be kept, `segments` the files made.
    """

    def __init__(
        self,
        folder: Path,
        run_id: str,
        rank: int,
        generation: int,
        *,
        segment_bytes: int = segment.SIZE,
    ) -> None:
        self.folder, self.run_id, self.rank, self.generation = folder, run_id, rank, generation
        self.dropped = 0
        self.segments = 0
        self._size = segment_bytes
        self._map: mmap.mmap | None = None
        self._path: Path | None = None
        self._at = 0  # where the next record goes
        self._names: dict[str, int] = {}
        self._lock = threading.RLock()
        self._busy = False  # a signal handler may run in the middle of an emit, in its thread
        self._closed = False
        self._told = False
        self._retry_at = _NEVER
        self._writer = str(Identity.mine())
        _open.add(self)
        with self._lock:  # at once, so that readers know of every rank from the start
            self._next_segment(time.time())

    def scalar(self, step: int, name: str, value: float) -> None:
        """Tell one number. Raises BadInput when `step` or `value` is not a number."""
        self._numbers(segment.SCALAR, name, step, value, time.time())

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Tell several numbers of one step, at one time."""
        now = time.time()
        if not self._together(step, values, now):
            for name, value in values.items():
                self._numbers(segment.SCALAR, name, step, value, now)

    def span(self, name: str, start: float, end: float, step: int) -> None:
        """Tell that `name` went from `start` to `end` (seconds since 1970) in `step`."""
        self._numbers(segment.SPAN, name, step, start, end)

    def text(self, step: int, name: str, text: str) -> None:
        """Tell a line; cut at 32,000 bytes of UTF-8."""
        raw = text.encode(errors="replace")[: segment.TEXT_BYTES]
        now = time.time()
        try:
            payload = segment.TEXT_HEAD.pack(0, step, now) + raw
        except struct.error:
            raise _not_a_number(name, step, 0.0) from None
        self._write(segment.TEXT, name, payload, now)

    def close(self) -> None:
        """Mark the segment as closed and cut it to what it holds. May be called again."""
        with self._lock:
            self._closed = True
            self._leave_segment()

    def _together(self, step: int, values: Mapping[str, float], at: float) -> bool:
        """All in one copy, where nothing stands in the way: half the time of one by one."""
        with self._lock:
            if self._busy or self._closed or self._map is None:
                return False
            self._busy = True
            try:
                names = self._names
                records = [
                    segment.frame(segment.SCALAR, NUMBERS.pack(names[name], step, value, at))
                    for name, value in values.items()
                ]
                raw = b"".join(records)
                end = self._at + len(raw)
                if end > self._size:
                    return False
                self._map[self._at : end] = raw
                self._at = end
            except (KeyError, struct.error):  # a new name, no number: one by one says which
                return False
            finally:
                self._busy = False
        return True

    def _numbers(self, kind: int, name: str, step: int, value: float, at: float) -> None:
        try:
            payload = NUMBERS.pack(0, step, value, at)
        except struct.error:
            raise _not_a_number(name, step, value) from None
        self._write(kind, name, payload, at)

    def _write(self, kind: int, name: str, payload: bytes, at: float) -> None:
        """Frame and copy. The name's number, the payload's first field, is known only here."""
        with self._lock:
            if self._busy or self._closed:
                self.dropped += 1
                return
            self._busy = True
            try:
                number = self._names.get(name)
                if number is None or self._at + FRAME.size + len(payload) > self._size:
                    number = self._room(name, len(payload), at)
                if number is None or self._map is None:
                    self.dropped += 1
                    return
                record = segment.frame(kind, segment.NAME_HEAD.pack(number) + payload[4:])
                end = self._at + len(record)
                self._map[self._at : end] = record
                self._at = end
            finally:
                self._busy = False

    def _room(self, name: str, size: int, at: float) -> int | None:
        """Make sure that a record of `size` fits and its name has a number; None when it cannot."""
        raw = name.encode(errors="replace")[: segment.NAME_BYTES]
        needed = 2 * FRAME.size + segment.NAME_HEAD.size + len(raw) + size
        if (self._map is None or self._at + needed > self._size) and not self._next_segment(at):
            return None
        if self._map is None or self._at + needed > self._size:
            return None  # larger than a whole segment
        if name not in self._names:
            number = len(self._names)
            record = segment.frame(segment.NAME, segment.NAME_HEAD.pack(number) + raw)
            self._map[self._at : self._at + len(record)] = record
            self._at += len(record)
            self._names[name] = number
        return self._names[name]

    def _next_segment(self, now: float) -> bool:
        self._leave_segment()
        if time.monotonic() < self._retry_at:
            return False
        try:
            self._path, self._map = self._make(now)
        except (OSError, ValueError) as error:
            self._retry_at = time.monotonic() + _RETRY
            self._tell(error)
            return False
        self._at = segment.HEADER_BYTES
        self.segments += 1
        if self._told:
            self._told = False
            _log.info("signals can be kept again", extra=facts(dropped=self.dropped))
        return True

    def _make(self, now: float) -> tuple[Path, mmap.mmap]:
        """A new segment: preallocated, mapped, its header written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        index = self.segments
        while True:
            path = self.folder / segment.file_name(self.generation, self.rank, index)
            try:
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                break
            except FileExistsError:
                index += 1
        try:
            os.posix_fallocate(handle, 0, self._size)
            mapped = mmap.mmap(handle, self._size, flags=mmap.MAP_SHARED | _POPULATE)
        except (OSError, ValueError):
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        head = Head(self.run_id, self.rank, self.generation, now, self._writer, closed=False)
        raw, magic = segment.pack_head(head), len(segment.MAGIC)
        mapped[magic : segment.HEADER_BYTES] = raw[magic:]
        mapped[:magic] = raw[:magic]  # last, in one store: a header is there whole or not at all
        return path, mapped

    def _leave_segment(self) -> None:
        mapped, path, used = self._map, self._path, self._at
        self._map, self._path, self._names = None, None, {}
        if mapped is None or path is None:
            return
        mapped[segment.CLOSED_AT] = 1
        mapped.close()
        try:
            os.truncate(path, used)
        except OSError:
            return  # it stays as long as it is; zeros follow the records

    def _tell(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            _log.warning(
                "signals cannot be kept and are dropped; training goes on",
                extra=facts(folder=str(self.folder), why=str(error)),
            )

    def _abandon(self) -> None:
        """In a forked child: let go of what belongs to the parent, without touching the file."""
        self._lock = threading.RLock()
        self._closed = True
        self._map = None


_POPULATE = getattr(mmap, "MAP_POPULATE", 0)  # faults in all pages now, not in a training step
_open: weakref.WeakSet[Emitter] = weakref.WeakSet()


def _abandon_all() -> None:
    for emitter in list(_open):
        emitter._abandon()


os.register_at_fork(after_in_child=_abandon_all)


def _not_a_number(name: str, step: object, value: object) -> BadInput:
    return BadInput(
        f'"{name}" cannot be told: step {step!r}, value of type {type(value).__name__}',
        "Log numbers: a float, an int, or a tensor's item(), at an integer step.",
        name=name,
    )
