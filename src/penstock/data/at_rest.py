"""A shard at rest: one blob of rows, as Parquet, as an Arrow IPC file, or as both.

Arrow where most bytes are such that compression gains little and reading them in place gains much:
tensors, lists of numbers, tokens, pictures, sound, bytes that are compressed already. Such a file
is laid out (see `arrow_files.py`) so that every node maps it as it is. Where nearly all of it is
tensors and lists that Parquet knows, it is a Parquet file, too, of the same values (`mapped.py`).
Parquet (zstd, statistics) for the rest: features, text, keys, times, flags. The rows alone decide,
so that equal rows always give an equal blob.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from penstock.base.errors import Damaged
from penstock.base.hashing import short
from penstock.blobs import Blobs
from penstock.data.arrow_files import Spread, pieces, spread
from penstock.data.columns import Column, one_chunk
from penstock.data.manifest import ShardFormat
from penstock.data.mapped import arrow_part, empty_view, mapped, may_be_shared

_RAW_KINDS = {"tensor", "list"}
_RAW_MEANINGS = {"image", "encoded-image", "audio", "video", "point-cloud", "tokens"}
_SAMPLE = 1 << 18  # bytes of a column that are compressed to see whether that gains anything
_GAINS_LITTLE = 0.9  # of what it was
_NEARLY_ALL = 0.75  # of the bytes: the others are in the file twice


class Stored(NamedTuple):
    """A shard that is in the blob store."""

    digest: str
    rows: int
    bytes: int
    format: ShardFormat


def store_shard(blobs: Blobs, table: pa.Table, columns: Sequence[Column]) -> Stored:
    """Write rows as one blob. Raises what `put` raises."""
    rows = spread(table)
    format = shard_format(rows.batch, columns)
    data = _WRITERS[format](rows, table, columns)
    return Stored(put(blobs, data), table.num_rows, sum(map(len, data)), format)


def shard_format(batch: pa.RecordBatch, columns: Sequence[Column]) -> ShardFormat:
    """How these rows are best kept."""
    sizes = {each.name: _size(batch[each.name], each) for each in columns}
    raw = [each for each in columns if _is_raw(batch[each.name], each)]
    of_raw, of_all = sum(sizes[each.name] for each in raw), sum(sizes.values())
    if 2 * of_raw < of_all:
        return "parquet"
    shared = all(may_be_shared(batch[each.name], each) for each in raw)
    return "mapped" if shared and raw and of_raw >= _NEARLY_ALL * of_all else "arrow"


def _as_parquet(rows: Spread, table: pa.Table, columns: Sequence[Column]) -> list[memoryview]:
    return [parquet(table, columns)]


def _as_arrow(rows: Spread, table: pa.Table, columns: Sequence[Column]) -> list[memoryview]:
    return pieces(rows)


def _as_both(rows: Spread, table: pa.Table, columns: Sequence[Column]) -> list[memoryview]:
    shared = [each for each in columns if may_be_shared(rows.batch[each.name], each)]
    others = [each for each in columns if each not in shared]
    rest = parquet(table.select([each.name for each in others]), others) if others else b""
    whole = parquet(empty_view(table, shared), columns)
    return mapped(rows, shared, whole, rest)


_WRITERS: dict[ShardFormat, Callable[[Spread, pa.Table, Sequence[Column]], list[memoryview]]] = {
    "parquet": _as_parquet,
    "arrow": _as_arrow,
    "mapped": _as_both,
}


def size_of(table: pa.Table, columns: Sequence[Column]) -> int:
    """Bytes of rows, the same however they came in pieces."""
    return sum(_size(one_chunk(table[each.name]), each) for each in columns)


def _size(values: pa.Array, column: Column) -> int:
    """Bytes of a column, the same however its rows came in pieces."""
    if column.fixed:
        return len(values) * np.dtype(column.dtype).itemsize * math.prod(column.shape)
    if column.kind in ("text", "bytes"):
        return 4 * len(values) + (pc.sum(pc.binary_length(values)).as_py() or 0)
    if column.kind == "list":
        return 4 * len(values) + len(values.flatten()) * np.dtype(column.dtype).itemsize
    return 8 * len(values)


def _is_raw(values: pa.Array, column: Column) -> bool:
    """Whether a column is read often and compressed in vain."""
    if column.dtype == "bool":
        return False
    if column.kind in _RAW_KINDS or getattr(column, "meaning", "") in _RAW_MEANINGS:
        return True
    return column.kind == "bytes" and not _compresses(values)


def _compresses(values: pa.Array) -> bool:
    """Whether compressing the first values of a column of bytes gains much."""
    sample = b"".join(_first(values))
    return not sample or len(pa.Codec("zstd", 1).compress(sample)) < _GAINS_LITTLE * len(sample)


def _first(values: pa.Array) -> Iterator[bytes]:
    size = 0
    for value in values:
        if size >= _SAMPLE:
            return
        found = value.as_py() or b""
        size += len(found)
        yield found[:_SAMPLE]


def parquet(table: pa.Table, columns: Sequence[Column]) -> memoryview:
    """A table as one Parquet file: zstd, statistics where a value is a scalar, a CRC-32 for each
    page, by which readers that know nothing of the blob's hash see damage."""
    plain = [each.name for each in columns if each.kind != "tensor"]
    words = [each.name for each in columns if each.kind in ("text", "bytes")]
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=words or False,
        write_statistics=plain,
        write_page_checksum=True,
    )
    return memoryview(sink.getvalue())


def put(blobs: Blobs, data: Sequence[memoryview]) -> str:
    """Store a blob; where a damaged one lies at its address, put the good one in its place."""
    return blobs.put(data[0] if len(data) == 1 else _bytes(data), mend=True)


def _bytes(data: Sequence[memoryview]) -> Iterable[bytes]:
    yield from data  # type: ignore[misc]  # a memoryview is as good as bytes to hash and to write


def decode(
    data: pa.Buffer | bytes,
    format: ShardFormat,
    digest: str,
    columns: list[str] | None = None,
) -> pa.Table:
    """The rows of a blob. Raises Damaged when it does not parse.

    columns  names; default: all
    """
    try:
        if format == "parquet":
            # not `read_table`, which imports pyarrow.dataset: half a second
            return pq.ParquetFile(pa.BufferReader(data)).read(columns=columns)
        data = arrow_part(data if isinstance(data, pa.Buffer) else pa.py_buffer(data))
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        return table if columns is None else table.select(columns)
    except (pa.ArrowException, OSError, KeyError) as error:  # the readers raise all of them
        raise Damaged(
            f"blob {short(digest)} is not a shard of format {format}: {error}",
            "Prepare the dataset again with fresh=True.",
            digest=digest,
        ) from None
