"""Arrow IPC files of one batch, laid out so that a map of the file serves rows as they lie.

An ordinary Arrow IPC file (any reader reads it), with two promises that Arrow's own writer does
not make: every buffer of a page or more starts at a multiple of 4096 bytes of the file, every
smaller one at a multiple of 64; and equal tables give equal bytes. So a column of fixed width can
be mapped anywhere in memory by itself, without its neighbours.

How: Arrow writes the file, then the places of its buffers in the metadata (which are structs of
fixed size, so that nothing moves) are rewritten and the buffers laid there. Sources: Arrow
columnar format 1.5, "IPC file format", Message.fbs, File.fbs; FlatBuffers internals.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from penstock.data.columns import one_chunk
from penstock.data.plain import array_of

PAGE = 4096
_SMALL = 64
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


def pieces(batch: pa.RecordBatch) -> list[memoryview]:
    """The file's bytes, in order, as few pieces; one copy of the batch is made."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    whole = memoryview(sink.getvalue())
    footer = bytearray(_footer(whole))
    block = _block(footer)
    body = block.offset + block.metadata
    head = bytearray(whole[:body])
    made: list[memoryview] = [memoryview(head)]
    end = body
    for at, offset, length in list(_buffers(head, block.offset)):
        start = _up(end, PAGE if length >= PAGE else _SMALL)
        made += [_padding(start - end), whole[body + offset : body + offset + length]]
        struct.pack_into("<q", head, at, start - body)
        end = start + length
    length = _up(end, _SMALL) - body
    made += [_padding(body + length - end), memoryview(_END)]
    _put_body_length(head, block.offset, length)
    struct.pack_into("<q", footer, block.at + 16, length)
    tail = bytes(footer) + struct.pack("<i", len(footer)) + _MAGIC
    made.append(memoryview(tail))
    return [piece for piece in made if len(piece)]


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


def _footer(whole: memoryview) -> memoryview:
    end = len(whole) - len(_MAGIC) - 4
    (length,) = struct.unpack_from("<i", whole, end)
    return whole[end - length : end]


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
