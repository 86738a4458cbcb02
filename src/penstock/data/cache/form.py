"""What a cached shard looks like.

A file is an Arrow IPC file laid out in pages (`arrow_files.py`), then 32 bytes: a mark, the length
of what is before, its XXH3-128. A shard that is Arrow at rest is there as it is; one that was
Parquet has its numbers as NumPy reads them: flags as one byte each, missing floats as NaN.
"""

from __future__ import annotations

import math
import struct

import numpy as np
import pyarrow as pa
import xxhash

from penstock.data.columns import Column, column_of_type, fixed_values, one_chunk
from penstock.data.plain import array_of

MARK = b"PSTKSHD2"
TRAILER = struct.Struct("<8sQ16s")


def trailer(length: int, hashed: xxhash.xxh3_128) -> bytes:
    return TRAILER.pack(MARK, length, hashed.digest())


def is_whole(whole: pa.Buffer) -> bool:
    """Whether a cached file is all there and its bytes are right: reads all of it."""
    body = body_of(whole)
    if body is None:
        return False
    _, _, wanted = TRAILER.unpack(memoryview(whole)[body.size :])
    return bool(wanted == xxhash.xxh3_128_digest(body))


def body_of(whole: pa.Buffer) -> pa.Buffer | None:
    """What is before the trailer; None when that does not fit the length."""
    if whole.size < TRAILER.size:
        return None
    mark, length, _ = TRAILER.unpack(memoryview(whole)[whole.size - TRAILER.size :])
    fits = mark == MARK and length == whole.size - TRAILER.size
    return whole.slice(0, length) if fits else None


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
    values = (values.view(np.uint8) if values.dtype == bool else values).reshape(-1)
    flat = array_of(values)
    return (
        pa.FixedSizeListArray.from_arrays(flat, math.prod(column.shape)) if column.shape else flat
    )
