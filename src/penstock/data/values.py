"""Values of any length, read one by one from an open shard: text, bytes, lists, times, references.

What a batch holds owns its bytes: each value is copied once, from the map into the object that
the user gets, and nothing of a batch keeps a shard open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from penstock.data.columns import Column, fixed_values, values_of
from penstock.data.plain import present

Reader = Callable[[int], Any]


def reader(array: pa.Array, column: Column, store: str = "") -> Reader:
    """A function that gives the value of a row of this array; None where it is missing.

    text  str        bytes  bytes         list  NumPy array [its length]
    time  datetime   reference  Reference, which reads a sha256:… from the blob store `store`
    """
    read = _reader(array, column, store)
    if not array.null_count:
        return read
    there = present(array).tobytes()
    return lambda row: read(row) if there[row] else None


def _reader(array: pa.Array, column: Column, store: str) -> Reader:
    kind = array.type
    if kind in (pa.string(), pa.binary()):
        ends, data = _ends(array), memoryview(array.buffers()[2] or b"")
        if column.kind == "text":
            return lambda row: str(data[ends[row] : ends[row + 1]], "utf-8")
        return lambda row: data[ends[row] : ends[row + 1]].tobytes()
    if pa.types.is_list(kind) and not array.values.null_count:
        ends = _ends(array)
        flat = fixed_values(array.values, Column(column.name, "number", column.dtype))
        return lambda row: flat[ends[row] : ends[row + 1]].copy()
    return lambda row: values_of(array.slice(row, 1), column, store)[0]


def _ends(array: pa.Array) -> memoryview:
    """Where the values end: int32 [rows + 1], the first being where they begin."""
    offsets = array.buffers()[1]
    if offsets is None or not offsets.size:
        return memoryview(bytes(4)).cast("i")
    return memoryview(offsets).cast("i")[array.offset : array.offset + len(array) + 1]
