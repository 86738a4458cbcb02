"""A shard that is open.

Its rows are needed as Arrow only where a column has no fixed width or is not kept as NumPy reads
it. Else it is enough to know where each column starts in the file, and that follows from the
file's head, the metadata before the first buffer: shards of one version that have equally many
rows have equal heads. So the first of them is opened by Arrow, and of the others 4 KiB are read.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import NamedTuple

import pyarrow as pa

from penstock.data.arrow_files import one_batch, open_batch
from penstock.data.mapped import arrow_part

_HEAD = 4096  # bytes that are read to find the head
_MOST_KNOWN = 1024
_Places = dict[str, int]

_known: dict[bytes, _Places] = {}  # head of a file -> where columns start that can be mapped


class Source(NamedTuple):
    """A file that holds a shard: its descriptor, and the bytes of it that are Arrow."""

    handle: int
    length: int


class Opened:
    """A shard in a file that is mapped, or in memory. Owns the descriptor until `close_handle`.

    name   of the cached file; "" for a blob in place and for memory
    bytes  of memory or disk that it takes beside the blob store

    Raises pa.ArrowException when the file is not one that Arrow reads.
    """

    def __init__(
        self,
        file: Source | None = None,
        batch: pa.RecordBatch | None = None,
        name: str = "",
        bytes: int = 0,
    ) -> None:
        self.handle, self._length = file or (-1, 0)
        self.name, self.bytes = name, bytes
        self._batch = batch
        self._address = 0
        self._head = b"" if file is None else _head(file.handle)
        if file is not None and self._head not in _known:
            _ = self.batch  # now, while somebody can still say what is wrong with it

    @property
    def batch(self) -> pa.RecordBatch:
        """All columns as Arrow, over a map of the file; asked for the first time before
        `close_handle`."""
        if self._batch is None:
            whole = map_file(self.handle)
            self._address = whole.address
            self._batch = read_batch(whole.slice(0, self._length))
        return self._batch

    def forget_batch(self) -> None:
        """Nobody needs the rows as Arrow any more."""
        self._batch = None

    def places(self) -> _Places:
        """Columns that can be mapped by themselves -> place in the file, as `learn` was told."""
        return _known.get(self._head, {}) if self.handle >= 0 else {}

    def learn(self, column: str, address: int) -> int | None:
        """The values of a column lie at this address: returns their place in the file, which holds
        for all files of this head; None when they are not in the file."""
        place = address - self._address
        if self.handle < 0 or not self._head or not 0 <= place < self._length:
            return None
        if len(_known) < _MOST_KNOWN or self._head in _known:
            _known.setdefault(self._head, {})[column] = place
        return place

    def close_handle(self) -> None:
        """The maps stay; the descriptor goes."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


def _head(handle: int) -> bytes:
    """The file up to the batch's body: mark, schema, metadata of the batch. b"" for others."""
    data = os.pread(handle, _HEAD, 0)
    end = 8
    for _ in range(2):
        if len(data) < end + 8:
            return b""
        mark, length = struct.unpack_from("<Ii", data, end)
        end += 8 + length
        if mark != 0xFFFFFFFF or length <= 0:
            return b""
    return data[:end] if len(data) >= end else os.pread(handle, end, 0)


def map_file(handle: int) -> pa.Buffer:
    """The file as a buffer over a shared map, which outlives the descriptor. Raises OSError."""
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    with pa.memory_map(f"{folder}/{handle}") as file:
        return file.read_buffer()


def read_batch(data: pa.Buffer) -> pa.RecordBatch:
    """The file's rows; in place where it holds one batch. Raises pa.ArrowException."""
    data = arrow_part(data)
    try:
        return open_batch(data)
    except ValueError as error:
        if isinstance(error, pa.ArrowException):
            raise
        return one_batch(pa.ipc.open_file(pa.BufferReader(data)).read_all())
