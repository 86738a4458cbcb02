"""Arrow IPC files of one batch, laid out so that a map of the file serves rows as they lie.

An ordinary Arrow IPC file (any reader reads it), with two promises that Arrow's own writer does
not make: every buffer of a page or more starts at a multiple of 4096 bytes of the file, every
smaller one at a multiple of 64; and equal tables give equal bytes. So a column of fixed width can
be mapped anywhere in memory by itself, without its neighbours.

How: Arrow writes the file to a sink that keeps its buffers as they are, then the places of the
buffers in the metadata (which are structs of fixed size, so that nothing moves) are rewritten. No
value is copied: fresh memory of the size of a shard costs more than hashing it. Sources: Arrow
columnar format 1.5, "IPC file format", Message.fbs, File.fbs; FlatBuffers internals.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from penstock.data.columns import one_chunk
from penstock.data.plain import array_of, numbers

PAGE = 4096
_SMALL = 64
_LARGE = 1 << 20  # bytes of a column that is worth not being joined
_ZEROS = bytes(PAGE)
_END = struct.pack("<iI", -1, 0)  # of the stream of messages
_MAGIC = b"ARROW1"


class _Block(NamedTuple):
    """Where the file's footer says that the batch is; `at` is the place of these numbers."""

    at: int
    offset: int
    metadata: int
    body: int


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table as one batch; without a copy where its columns are contiguous and have no gaps."""
    arrays = [_without_rubbish(one_chunk(table[name])) for name in table.column_names]
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema.remove_metadata())


def _without_rubbish(array: pa.Array) -> pa.Array:
    """Whatever lies where a value is missing would be part of the bytes: take leaves zeros."""
    return array.take(array_of(np.arange(len(array)))) if array.null_count else array


class Spread(NamedTuple):
    """Rows as one batch for `pieces`, though columns of numbers still lie in parts.

    batch  where a column is in parts it has a stand-in of the right size, which nobody may read
    parts  address of a stand-in's buffer -> its bytes, in order
    """

    batch: pa.RecordBatch
    parts: Mapping[int, list[memoryview]]

    def bytes_of(self, values: pa.Array) -> list[memoryview]:
        """Those of a column's numbers: of the array itself, or those that it stands for."""
        return self.parts.get(values.buffers()[1].address) or [_bytes_of(values)]


def spread(table: pa.Table) -> Spread:
    """A table's rows, without joining the parts of its large columns of fixed width."""
    parts: dict[int, list[memoryview]] = {}
    arrays = []
    for name in table.column_names:
        column = table[name]
        if _may_stay_apart(column):
            array, address = _stand_in(column.type, len(column))
            parts[address] = [_bytes_of(chunk) for chunk in column.chunks]
        else:
            array = _without_rubbish(one_chunk(column))
        arrays.append(array)
    return Spread(pa.RecordBatch.from_arrays(arrays, schema=table.schema.remove_metadata()), parts)


def _may_stay_apart(column: pa.ChunkedArray) -> bool:
    values = _values_type(column.type)
    if column.num_chunks < 2 or column.null_count or values is None:
        return False
    return column.nbytes >= _LARGE and not any(_values(c).null_count for c in column.chunks)


def _values_type(kind: pa.DataType) -> pa.DataType | None:
    """Of a column of fixed width whose values are numbers of whole bytes."""
    values = kind.value_type if isinstance(kind, pa.FixedShapeTensorType) else kind
    plain = pa.types.is_integer(values) or pa.types.is_floating(values)
    return values if plain else None


def _values(array: pa.Array) -> pa.Array:
    return array.storage.flatten() if isinstance(array, pa.ExtensionArray) else array


def _bytes_of(array: pa.Array) -> memoryview:
    return numbers(_values(array)).view(np.uint8).data


def _stand_in(kind: pa.DataType, rows: int) -> tuple[pa.Array, int]:
    """A column over addresses that cost no memory as long as nobody reads them."""
    storage = kind.storage_type if isinstance(kind, pa.FixedShapeTensorType) else kind
    many = rows if storage is kind else rows * storage.list_size
    values = _values_type(kind)
    assert values is not None
    size = many * values.bit_width // 8
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    nothing = pa.py_buffer(mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_READ))
    array = pa.Array.from_buffers(values, many, [None, nothing], null_count=0)
    if storage is not kind:
        lists = pa.Array.from_buffers(storage, rows, [None], null_count=0, children=[array])
        array = pa.ExtensionArray.from_storage(kind, lists)
    return array, nothing.address


class _Sink:
    """A file for Arrow's writer that keeps what is written as it is, by its place."""

    closed = False

    def __init__(self) -> None:
        self.written: dict[int, Any] = {}
        self._end = 0

    def write(self, data: Any) -> int:
        if size := memoryview(data).nbytes:
            self.written[self._end] = data
            self._end += size
        return size

    def tell(self) -> int:
        return self._end

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def small(self, start: int, end: int) -> bytearray:
        """Bytes of what was written in small: heads and tails."""
        found = (data for at, data in self.written.items() if start <= at < end)
        return bytearray(b"".join(bytes(data) for data in found))


class Laid(NamedTuple):
    """pieces: the file's bytes, in order. heads: number of a buffer -> where its head lies."""

    pieces: list[memoryview]
    heads: dict[int, int]


def pieces(rows: pa.RecordBatch | Spread) -> list[memoryview]:
    """The file's bytes, in order; views of the rows' own buffers, for the most part."""
    return lay(rows if isinstance(rows, Spread) else Spread(rows, {}), {}).pieces


def lay(rows: Spread, heads: Mapping[int, bytes], mark: bytes = _MAGIC) -> Laid:
    """A file, in which other bytes may lie directly before a buffer.

    heads  by the buffer's number in the batch
    mark   what the file begins with; Arrow's readers look at its end
    """
    batch, parts = rows
    sink = _Sink()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    footer = _footer(sink)
    block = _block(footer)
    body = block.offset + block.metadata
    head = sink.small(0, body)
    head[: len(_MAGIC)] = mark.ljust(len(_MAGIC), b"\0")
    made: list[memoryview] = [memoryview(head)]
    places = {}
    end = body
    for number, (at, offset, length) in enumerate(list(_buffers(head, block.offset))):
        before = heads.get(number, b"")
        start = _up(end + len(before), PAGE if length >= PAGE else _SMALL)
        places[number] = start - len(before)
        made += [_padding(places[number] - end), memoryview(before)]
        if length:
            made += _laid(sink.written[body + offset], parts, length)
        struct.pack_into("<q", head, at, start - body)
        end = start + length
    length = _up(end, _SMALL) - body
    made += [_padding(body + length - end), memoryview(_END)]
    _put_body_length(head, block.offset, length)
    struct.pack_into("<q", footer, block.at + 16, length)
    tail = bytes(footer) + struct.pack("<i", len(footer)) + _MAGIC
    made.append(memoryview(tail))
    return Laid([piece for piece in made if len(piece)], {each: places[each] for each in heads})


def _laid(data: Any, parts: Mapping[int, list[memoryview]], length: int) -> list[memoryview]:
    """The bytes of one buffer."""
    found = parts.get(data.address) if isinstance(data, pa.Buffer) else None
    return found or [memoryview(data).cast("B")[:length]]


def open_batch(data: pa.Buffer) -> pa.RecordBatch:
    """The one batch of a file in memory or in a map; nothing is copied.

    Raises pa.ArrowException; ValueError when it does not hold exactly one batch.
    """
    reader = pa.ipc.open_file(pa.BufferReader(data))
    if reader.num_record_batches != 1:
        raise ValueError(f"{reader.num_record_batches} batches, not one")
    return reader.get_batch(0)


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _padding(length: int) -> memoryview:
    return memoryview(_ZEROS)[:length]


# just enough FlatBuffers: a table points back to its vtable, which says where each field is


def _footer(sink: _Sink) -> bytearray:
    tail = sink.small(sink.tell() - len(_MAGIC) - 4, sink.tell())
    (length,) = struct.unpack_from("<i", tail)
    end = sink.tell() - len(tail)
    return sink.small(end - length, end)


def _root(data: bytearray, start: int = 0) -> int:
    (offset,) = struct.unpack_from("<I", data, start)
    return start + int(offset)


def _field(data: bytearray, table: int, number: int) -> int:
    """The place of a field's value."""
    (back,) = struct.unpack_from("<i", data, table)
    (offset,) = struct.unpack_from("<H", data, table - back + 4 + 2 * number)
    return table + int(offset)


def _vector(data: bytearray, at: int) -> tuple[int, int]:
    """The place of a vector's first element, and how many there are."""
    start = _root(data, at)
    (many,) = struct.unpack_from("<I", data, start)
    return start + 4, int(many)


def _block(footer: bytearray) -> _Block:
    at, many = _vector(footer, _field(footer, _root(footer), 3))
    if many != 1:
        raise AssertionError("one batch was written")
    offset, metadata, body = struct.unpack_from("<qi4xq", footer, at)
    return _Block(at, offset, metadata, body)


def _message(data: bytearray, offset: int) -> int:
    return _root(data, offset + 8)  # behind the mark and the length


def _buffers(data: bytearray, offset: int) -> Iterator[tuple[int, int, int]]:
    """(place of the struct, offset in the body, length) of every buffer of the batch."""
    header = _root(data, _field(data, _message(data, offset), 2))
    first, many = _vector(data, _field(data, header, 2))
    for at in range(first, first + 16 * many, 16):
        yield at, *struct.unpack_from("<qq", data, at)


def _put_body_length(data: bytearray, offset: int, length: int) -> None:
    struct.pack_into("<q", data, _field(data, _message(data, offset), 3), length)
