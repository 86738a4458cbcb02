"""What is computed once about a split and kept: small Arrow files in the node's cache.

`FOLDER/<SHA-256 of the key>.v1` holds an Arrow IPC file of one batch, then 32 bytes: the mark, the
length of what is before, its XXH3-128. The key says everything that the table follows from (the
split's identity and the spec), so a file is never out of date; it never changes, and anyone may
delete it at any time (a map of it stays valid).

Written under a lock (one builder; the others wait for it), beside its place, renamed into it:
killed anywhere, a builder leaves at most a scratch file, which the next one removes. A file that
is damaged is computed anew. Where the folder cannot be written, or has no room, the table stays in
memory. How much all of them take, and which go: see `cache/space.py`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import xxhash

from penstock.base.hashing import canonical_json
from penstock.base.ids import new_id
from penstock.base.log import facts, logger
from penstock.data import plain
from penstock.data.cache.space import INDEX_ENDING, room_for_index
from penstock.data.columns import one_chunk
from penstock.data.order import Rows

_MARK = b"PSTKIDX1"
_TRAILER = struct.Struct("<8sQ16s")
_LOCKS = 16
_PATIENCE = 600.0  # seconds that another builder may take
_log = logger("data")


def kept(
    folder: Path | None, key: object, build: Callable[[], pa.Table], patience: float = _PATIENCE
) -> pa.Table:
    """The table that `key` (JSON-able) stands for: mapped from the cache, or built and put there.

    folder    None: built, and not kept
    patience  seconds that another builder may take; a dead one is not waited for
    Raises what `build` raises. `build` must not ask for another table: it may have this lock.
    """
    if folder is None:
        return build()
    path = folder / f"{hashlib.sha256(canonical_json(key)).hexdigest()}{INDEX_ENDING}"
    found = _mapped(path)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{zlib.crc32(path.name.encode()) % _LOCKS:02}.lock"
        lock = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        return _degraded(folder, error, build())
    with _locked(lock, patience):
        if (found := _mapped(path)) is not None:
            return found  # another process was faster
        table = build()
        try:
            _write(path, table)
        except OSError as error:
            return _degraded(folder, error, table)
    found = _mapped(path)
    return table if found is None else found


def numbers(table: pa.Table, name: str) -> Rows:
    """A column of whole numbers as NumPy; a view of the map."""
    found: Rows = plain.numbers(one_chunk(table[name]))
    return found


def _degraded(folder: Path, error: OSError, table: pa.Table) -> pa.Table:
    _log.warning(
        "an index of samples cannot be kept; it stays in memory",
        extra=facts(folder=str(folder), why=error.strerror or str(error)),
    )
    return table


def _mapped(path: Path) -> pa.Table | None:
    """The file as a table, checked; None when it is not there or not whole."""
    try:
        with pa.memory_map(str(path)) as file:
            whole = file.read_buffer()
        os.utime(path)  # opened now: removed last
    except OSError:
        return None
    body = whole.slice(0, max(0, whole.size - _TRAILER.size))
    if not _is_whole(whole, body):
        _log.warning(
            "an index of samples is damaged; computing it anew", extra=facts(path=str(path))
        )
        return None
    try:
        return pa.ipc.open_file(pa.BufferReader(body)).read_all()
    except pa.ArrowException:  # written by another version of Arrow
        return None


def _is_whole(whole: pa.Buffer, body: pa.Buffer) -> bool:
    if whole.size < _TRAILER.size:
        return False
    mark, length, wanted = _TRAILER.unpack(memoryview(whole)[body.size :])
    return bool(mark == _MARK and length == body.size and wanted == xxhash.xxh3_128_digest(body))


def _write(path: Path, table: pa.Table) -> None:
    """Write beside, rename into place. Not flushed: after a power cut the hash finds it torn."""
    for stale in path.parent.glob(f"{path.name}.*.tmp"):
        stale.unlink(missing_ok=True)  # its builder is dead: we hold its lock
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=max(1, table.num_rows))
    body = memoryview(sink.getvalue())
    if not room_for_index(path.parent, len(body) + _TRAILER.size):
        raise OSError(errno.EDQUOT, "it is more than a quarter of the node's cache")
    scratch = path.with_name(f"{path.name}.{new_id()}.tmp")
    try:
        with scratch.open("xb") as stream:
            stream.write(body)
            stream.write(_TRAILER.pack(_MARK, len(body), xxhash.xxh3_128_digest(body)))
        scratch.replace(path)
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


@contextmanager
def _locked(handle: int, patience: float) -> Iterator[None]:
    """Hold the lock of some tables, or go on without it when its holder does not let go."""
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    _log.warning("a builder of an index hangs; building without its lock")
                    break
                time.sleep(0.005)
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)  # also for a copy that a fork may have made
        os.close(handle)
