"""A shard that is Parquet to everybody and is mapped as it lies: the values are in the file once.

    "PAR1", four zeros        an Arrow IPC file of one batch (`arrow_files.py`), whose mark these
    schema, batch, footer     stand for; directly before the values of a shared column, in no buffer
                              of Arrow's, lie the header and the levels of a Parquet page
    column chunks             of the columns that are not shared, as Parquet's writer makes them
    length of the above       of its Arrow part: uint64
    metadata, length, "PAR1"  Parquet's own

The values of a Parquet page that is plain and not compressed are those of an Arrow buffer; a page
may lie anywhere. Shared are tensors and lists of numbers of 4 and 8 bytes without gaps. Parquet has
tensors as lists in lists. In its schema shared columns come first: readers that cut files (Spark)
look for a row group half its size behind its first column, which must not be beyond the file's end.

Source: Apache Parquet format 2.11, parquet.thrift, "Data Pages", "Run Length Encoding / Bit-Packing
Hybrid"; of how files are cut, ParquetMetadataConverter in parquet-java.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.data import thrift
from penstock.data.arrow_files import Spread, lay
from penstock.data.columns import Column
from penstock.data.thrift import BINARY, I16, I32, I64, LIST, STRUCT, Items, Struct, Value

_MARK = b"PAR1"
_TAIL = struct.Struct("<I4s")  # length of the metadata, mark
_LENGTH = struct.Struct("<Q")
_TYPES = {"int32": 1, "int64": 2, "float32": 4, "float64": 5}  # Parquet's numbers of them
_MOST = (1 << 31) - (1 << 26)  # bytes of a page: values, and levels of an eighth of a bit for each
_PLAIN, _RLE = 0, 3  # encodings
_RUNS = 40  # bits of a list's levels as runs, about; else each of its values takes a bit

Levels = npt.NDArray[np.uint8]


# which columns, and as what


def may_be_shared(array: pa.Array, column: Column) -> bool:
    """Whether a column's values are a page as they lie. array: it may be a stand-in."""
    if column.kind not in ("tensor", "list") or column.dtype not in _TYPES or array.null_count:
        return False
    values = _flat(array)
    if values.null_count or not len(values) or values.nbytes > _MOST:
        return False
    return column.kind == "tensor" or pc.min(pc.list_value_length(array)).as_py() > 0


def _flat(array: pa.Array) -> pa.Array:
    return (array.storage if isinstance(array, pa.ExtensionArray) else array).flatten()


def empty_view(table: pa.Table, shared: Sequence[Column]) -> pa.Table:
    """No rows of the columns as Parquet shows them: shared ones first, as lists in lists."""
    names = [each.name for each in shared]
    others = [name for name in table.column_names if name not in names]
    found = table.slice(0, 0).replace_schema_metadata().select([*names, *others])
    for column in shared:
        kind = pa.from_numpy_dtype(np.dtype(column.dtype))
        for _ in column.shape or (0,):
            kind = pa.list_(pa.field("element", kind, nullable=False))
        at = found.schema.get_field_index(column.name)
        field = pa.field(column.name, kind, nullable=False)
        found = found.set_column(at, field, pa.chunked_array([], kind))
    return found


# the file


def mapped(rows: Spread, shared: Sequence[Column], whole: Any, rest: Any) -> list[memoryview]:
    """The file's bytes, in order; views of the rows' own buffers, for the most part.

    shared  columns that `may_be_shared`, one at least
    whole   a Parquet file without rows, of `empty_view`
    rest    a Parquet file of the other columns, in one row group; b"" where there are none
    """
    first = _first_buffers(rows.batch.schema)
    pages = {first[each.name] + _VALUES[each.kind]: _Page(rows, each) for each in shared}
    laid = lay(rows, {number: page.head for number, page in pages.items()}, _MARK)
    size = sum(map(len, laid.pieces))
    chunks = [page.chunk(laid.heads[number]) for number, page in pages.items()]
    behind = memoryview(b"")
    if len(rest):
        told, end = _metadata(rest)
        group = told[4].value.values[0]
        chunks += [_moved(each, size - len(_MARK)) for each in group[1].value.values]
        behind = memoryview(rest)[len(_MARK) : end]
    schema, _ = _metadata(whole)
    footer = _footer(schema, chunks, rows.batch.num_rows, min(laid.heads.values()))
    tail = _LENGTH.pack(size) + footer + _TAIL.pack(len(footer), _MARK)
    return [*laid.pieces, behind, memoryview(tail)]


def arrow_length(read: Callable[[int, int], Any], size: int) -> int:
    """How many of a shard's bytes, the first ones, are an Arrow file.

    read  (start, length) -> bytes of the shard
    size  of all
    """
    if size < _TAIL.size + _LENGTH.size:
        return size
    length, mark = _TAIL.unpack(read(size - _TAIL.size, _TAIL.size))
    at = size - _TAIL.size - length - _LENGTH.size
    if mark != _MARK or at < 0:
        return size
    return min(size, int(_LENGTH.unpack(read(at, _LENGTH.size))[0]))


def arrow_part(data: pa.Buffer) -> pa.Buffer:
    """The Arrow file in a shard in memory or in a map; nothing is copied."""
    view = memoryview(data)
    return data.slice(0, arrow_length(lambda at, length: view[at : at + length], len(view)))


class _Page:
    """A shared column's page. head: all of it that comes before the values."""

    def __init__(self, rows: Spread, column: Column) -> None:
        array = rows.batch[column.name]
        values = _flat(array)
        self._column, self._count, self._bytes = column, len(values), values.nbytes
        depth = max(1, len(column.shape))
        levels = _repetition(array, column, len(values)), _run(depth, len(values))
        before = b"".join(struct.pack("<I", len(each)) + each for each in levels)
        checksum = zlib.crc32(before)
        for part in rows.bytes_of(values):
            checksum = zlib.crc32(part, checksum)
        self.head = self._header(len(before) + self._bytes, checksum) + before

    def _header(self, size: int, checksum: int) -> bytes:
        signed = checksum - (1 << 32) if checksum >> 31 else checksum
        page = _numbered(I32, self._count, _PLAIN, _RLE, _RLE)
        return thrift.encode({**_numbered(I32, 0, size, size, signed), 5: Value(STRUCT, page)})

    def chunk(self, at: int) -> Struct:
        """What the metadata say of it. at: where the page begins."""
        column = self._column
        path = [column.name.encode(), *[b"list", b"element"] * max(1, len(column.shape))]
        size = len(self.head) + self._bytes
        told = {
            1: Value(I32, _TYPES[column.dtype]),
            2: Value(LIST, Items(I32, [_PLAIN, _RLE])),
            3: Value(LIST, Items(BINARY, path)),
            4: Value(I32, 0),
            5: Value(I64, self._count),
            6: Value(I64, size),
            7: Value(I64, size),
            9: Value(I64, at),
        }
        return {2: Value(I64, 0), 3: Value(STRUCT, told)}


def _numbered(kind: int, *values: int) -> Struct:
    return {number: Value(kind, each) for number, each in enumerate(values, 1)}


# where buffers are: as many of each column as Arrow writes

_VALUES = {"tensor": 2, "list": 3}  # which one of a shared column's holds the values


def _first_buffers(schema: pa.Schema) -> dict[str, int]:
    found, at = {}, 0
    for field in schema:
        found[field.name] = at
        at += _buffers(field.type)
    return found


def _buffers(kind: pa.DataType) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        return _buffers(kind.storage_type)
    if pa.types.is_struct(kind):
        return 1 + sum(_buffers(each.type) for each in kind)
    if pa.types.is_fixed_size_list(kind):
        return 1 + _buffers(kind.value_type)
    if pa.types.is_list(kind):
        return 2 + _buffers(kind.value_type)
    wide = pa.types.is_string(kind) or pa.types.is_binary(kind)
    return 3 if wide else 2


# levels


def _repetition(array: pa.Array, column: Column, count: int) -> bytes:
    """For each value, how deep the list is that goes on: 0 where a row begins."""
    if column.kind == "list":
        lengths = np.diff(array.offsets.to_numpy())
        if _RUNS * len(lengths) < count:
            runs = {each: _runs(_levels((each,))) for each in np.unique(lengths).tolist()}
            return b"".join([runs[each] for each in lengths.tolist()])
        levels = np.ones(count, np.uint8)
        levels[np.cumsum(lengths) - lengths] = 0
        return _packed(levels, 1)
    row, width = _levels(column.shape), len(column.shape).bit_length()
    runs_of_row = _runs(row)
    if 8 * len(runs_of_row) < len(row) * width:
        return runs_of_row * len(array)
    return _packed(np.tile(row, len(array)), width)


def _levels(shape: Sequence[int]) -> Levels:
    """Of one row."""
    row = np.full(math.prod(shape), len(shape), np.uint8)
    for level in range(len(shape) - 1, -1, -1):
        row[:: math.prod(shape[level:])] = level
    return row


def _runs(levels: Levels) -> bytes:
    ends = [*(np.flatnonzero(np.diff(levels)) + 1).tolist(), len(levels)]
    return b"".join(_run(int(levels[start]), end - start) for start, end in pairwise([0, *ends]))


def _run(level: int, many: int) -> bytes:
    """The same level many times."""
    out = bytearray()
    thrift.put_varint(out, many << 1)
    return bytes(out) + bytes([level])


def _packed(levels: Levels, width: int) -> bytes:
    """Any levels, of some bits each."""
    groups = -(-len(levels) // 8)
    out = bytearray()
    thrift.put_varint(out, groups << 1 | 1)
    bits = levels if width == 1 else (levels[:, None] >> np.arange(width, dtype=np.uint8)) & 1
    data = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    return bytes(out) + data.ljust(groups * width, b"\0")


# metadata


def _metadata(file: Any) -> tuple[Struct, int]:
    """(a Parquet file's metadata, where they begin)."""
    view = memoryview(file)
    length, _ = _TAIL.unpack(view[-_TAIL.size :])
    start = len(view) - _TAIL.size - length
    return thrift.decode(bytes(view[start : -_TAIL.size])), start


def _moved(chunk: Struct, by: int) -> Struct:
    """A column chunk that lies elsewhere; its indexes, if any, do not go with it."""
    told = dict(chunk[3].value)
    for number in (9, 11):  # of the data, of the dictionary
        if number in told:
            told[number] = Value(I64, told[number].value + by)
    return {2: Value(I64, 0), 3: Value(STRUCT, told)}


def _footer(schema: Struct, chunks: list[Struct], rows: int, start: int) -> bytes:
    sizes = [[each[3].value[number].value for each in chunks] for number in (6, 7)]
    group = {
        1: Value(LIST, Items(STRUCT, chunks)),
        2: Value(I64, sum(sizes[0])),
        3: Value(I64, rows),
        5: Value(I64, start),
        6: Value(I64, sum(sizes[1])),
        7: Value(I16, 0),
    }
    groups = Value(LIST, Items(STRUCT, [group]))
    return thrift.encode({**schema, 3: Value(I64, rows), 4: groups})
