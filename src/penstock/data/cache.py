"""The node's cache: shards as uncompressed Arrow IPC, memory-mapped, shared by all processes.

`FOLDER/<shard's digest>.v1` holds an Arrow IPC file of one batch, then 32 bytes: the mark, the
length of what is before, its XXH3-128. Numbers lie as NumPy reads them (bool as one byte each,
missing floats as NaN), so that a view needs no copy.

Who owns what: nobody owns a finished file, it never changes and may be deleted by anyone (a map
of it stays valid). It is built under a flock on one of 64 lock files, written beside its place
and renamed into it; killed anywhere, a builder leaves at most a scratch file, which the shard's
next builder removes. A holder of the lock that hangs delays the others by `_PATIENCE` at most;
then they build too, which is harmless.

A cached file is checked when it is built (from a blob that `get` verified) and once per process
when it is opened; one that is damaged is built anew. Where the folder cannot be written (full,
read-only) shards are kept in memory, and the log says so.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import xxhash

from penstock.base.hashing import PREFIX
from penstock.base.ids import new_id
from penstock.base.log import facts, logger
from penstock.blobs import Blobs
from penstock.data.at_rest import decode
from penstock.data.columns import Array, Column, column_of_type, fixed_values, one_chunk
from penstock.data.manifest import ShardFormat

FORMAT = "v1"
_MARK = b"PSTKSHD1"
_TRAILER = struct.Struct("<8sQ16s")
_LOCKS = 64
_PATIENCE = 60.0  # seconds
_log = logger("data")

_checked: set[tuple[str, int, int, int]] = set()
"""Files whose hash this process has compared: path, inode, modification time, size."""


_said: set[tuple[str, str]] = set()


class ShardCache:
    """Opens shards. Holds no file descriptor between calls; safe for threads and over a fork."""

    def __init__(self, blobs: Blobs, folder: Path) -> None:
        self._blobs = blobs
        self._folder = folder

    def open(self, digest: str, format: ShardFormat = "parquet") -> pa.RecordBatch:
        """A shard as one batch, laid out as above; mapped where that is possible.

        Raises NotFound and Damaged from the blob store; Damaged when it is no Parquet.
        """
        path = self._folder / f"{digest.removeprefix(PREFIX)}.{FORMAT}"
        found = _mapped(path)
        return self._build(digest, format, path) if found is None else found

    def _build(self, digest: str, format: ShardFormat, path: Path) -> pa.RecordBatch:
        built: pa.RecordBatch | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with _alone(self._folder, path.name):
                if (found := _mapped(path)) is not None:
                    return found  # another process was faster
                built = self._decode(digest, format)
                _write(path, built)
            if (found := _mapped(path)) is not None:
                return found
        except OSError as error:
            _say_degraded(self._folder, error.strerror or str(error))
        return self._decode(digest, format) if built is None else built

    def _decode(self, digest: str, format: ShardFormat) -> pa.RecordBatch:
        return laid_out(decode(self._blobs.get(digest), format, digest))


def _say_degraded(folder: Path, why: str) -> None:
    """Once per folder and reason: every shard of an epoch would say the same."""
    if (str(folder), why) not in _said:
        _said.add((str(folder), why))
        _log.warning(
            "shards cannot be cached; reading into memory instead",
            extra=facts(folder=str(folder), why=why),
        )


def laid_out(table: pa.Table) -> pa.RecordBatch:
    """A shard's table as one batch whose numbers NumPy can view. Columns keep their names."""
    arrays = []
    for name in table.column_names:
        array = one_chunk(table[name])
        column = column_of_type(name, array.type)
        arrays.append(_numbers(array, column) if _viewable(array, column) else array)
    return pa.RecordBatch.from_arrays(arrays, names=table.column_names)


def _viewable(array: pa.Array, column: Column) -> bool:
    return column.fixed and (not array.null_count or column.dtype.startswith("float"))


def _numbers(array: pa.Array, column: Column) -> pa.Array:
    values = np.ascontiguousarray(fixed_values(array, column))
    flat = pa.array((values.view(np.uint8) if values.dtype == bool else values).reshape(-1))
    return (
        pa.FixedSizeListArray.from_arrays(flat, math.prod(column.shape)) if column.shape else flat
    )


def views(batch: pa.RecordBatch, columns: Sequence[Column]) -> dict[str, Array | pa.Array]:
    """The wanted columns of an opened shard: NumPy views [n, *shape], others as Arrow arrays."""
    found: dict[str, Array | pa.Array] = {}
    for column in columns:
        array = batch.column(column.name)
        if not column.fixed or array.null_count:
            found[column.name] = array
            continue
        flat = array.flatten() if column.shape else array
        values = flat.to_numpy(zero_copy_only=True)
        values = values.view(bool) if column.dtype == "bool" else values
        found[column.name] = values.reshape(len(array), *column.shape)
    return found


def _mapped(path: Path) -> pa.RecordBatch | None:
    """The file as a batch, checked; None when it is not there or not whole."""
    try:
        state = path.stat()
        with pa.memory_map(str(path)) as file:
            whole = file.read_buffer()
    except OSError:  # not there, or not for us to read: building it will tell
        return None
    body = whole.slice(0, max(0, whole.size - _TRAILER.size))
    seen = (str(path), state.st_ino, state.st_mtime_ns, state.st_size)
    if seen not in _checked:
        if not _is_whole(whole, body):
            _log.warning("a cached shard is damaged; building it anew", extra=facts(path=str(path)))
            return None
        _checked.add(seen)
    try:
        return pa.ipc.open_file(pa.BufferReader(body)).get_batch(0)
    except pa.ArrowException:  # written by another version of Arrow
        return None


def _is_whole(whole: pa.Buffer, body: pa.Buffer) -> bool:
    if whole.size < _TRAILER.size:
        return False
    mark, length, wanted = _TRAILER.unpack(memoryview(whole)[body.size :])
    return bool(mark == _MARK and length == body.size and wanted == xxhash.xxh3_128_digest(body))


class _Hashing:
    """A file object that hashes what passes; Arrow writes into it."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.hash = xxhash.xxh3_128()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.size += len(data)
        return self._stream.write(data)

    def flush(self) -> None:
        """Nothing to do: the stream below is flushed when it closes."""

    def close(self) -> None:
        """Arrow closes what it wrote to; the stream below has its own end."""


def _write(path: Path, batch: pa.RecordBatch) -> None:
    """Write beside, rename into place. Not flushed: after a power cut the hash finds it torn."""
    for stale in path.parent.glob(f"{path.name}.*.tmp"):
        stale.unlink(missing_ok=True)  # its builder is dead: we hold its lock
    scratch = path.with_name(f"{path.name}.{new_id()}.tmp")
    try:
        with scratch.open("xb") as stream:
            hashing = _Hashing(stream)
            with pa.ipc.new_file(pa.PythonFile(hashing, "w"), batch.schema) as writer:
                writer.write_batch(batch)
            stream.write(_TRAILER.pack(_MARK, hashing.size, hashing.hash.digest()))
        scratch.replace(path)
    finally:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)


@contextmanager
def _alone(folder: Path, name: str, now: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Hold the lock of a shard, or go on without it when its holder does not let go."""
    number = zlib.crc32(name.encode()) % _LOCKS
    handle = os.open(folder / f"{number:02}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = now() + _PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if now() >= deadline:
                    _log.warning("a builder of cached shards hangs; building without its lock")
                    break
                time.sleep(0.005)
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)  # also for a copy that a fork may have made
        os.close(handle)
