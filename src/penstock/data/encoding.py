"""The bytes of values that keys, content and rows are hashed by.

Numbers and tensors little-endian in C order, time as Arrow's integer, others as 8 bytes of length
and the bytes: a list those of its elements, a reference start and length (-1 when it goes to the
end) as 8 bytes each and its uri.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.data.columns import Array, Column, elements_of, fixed_values, values_of
from penstock.data.plain import numbers, present
from penstock.data.references import Reference

_SIZE = 8  # bytes of a length


class Encoded(NamedTuple):
    """A column's values one behind the other; a missing one has no bytes.

    ends  where the first begins, and where each ends: int64 [rows + 1]
    """

    data: memoryview
    ends: npt.NDArray[np.int64]


def encoded(array: pa.Array, column: Column) -> Encoded:
    """The bytes of all values of a column; none but references are Python objects meanwhile."""
    if column.kind in ("text", "bytes"):
        return _sized(array)
    if column.kind == "list":
        return _sized(_lists(array, column))
    if column.kind == "reference":
        return _sized_each(
            None if value is None else _range_bytes(value) for value in values_of(array, column)
        )
    if column.kind == "tensor":
        return _fixed(fixed_values(array, column))
    if column.kind == "time":
        array = array.cast(pa.int32() if array.type.bit_width == 32 else pa.int64())
    return _fixed(numbers(array), present(array) if array.null_count else None)


def value_bytes(array: pa.Array, column: Column) -> Iterator[bytes | None]:
    """The bytes of each value; None for a missing one."""
    data, ends = encoded(array, column)
    there = array.is_valid().to_pylist()
    for valid, (start, stop) in zip(there, pairwise(ends.tolist()), strict=True):
        yield bytes(data[start:stop]) if valid else None


def _fixed(values: Array, there: npt.NDArray[np.bool_] | None = None) -> Encoded:
    """values [rows, …], of which those count that are `there`."""
    size = values.nbytes // max(1, len(values))
    ends = np.arange(len(values) + 1, dtype=np.int64)
    if there is not None:
        ends[1:] = np.cumsum(there)
        values = values[there]
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return Encoded(little.reshape(-1).view(np.uint8).data, ends * size)


def _lists(array: pa.Array, column: Column) -> pa.Array:
    """The bytes of each list's elements; these are not copied."""
    flat, ends = elements_of(array, column)
    little = np.ascontiguousarray(flat, dtype=flat.dtype.newbyteorder("<"))
    places = pa.py_buffer(ends.astype("<i8") * little.itemsize)
    buffers = [None, places, pa.py_buffer(little.view(np.uint8))]
    found = pa.Array.from_buffers(pa.large_binary(), len(array), buffers)
    return pc.if_else(array.is_valid(), found, None) if array.null_count else found


def _sized(array: pa.Array) -> Encoded:
    """Text or bytes, the length before each."""
    wide = array.cast(pa.large_binary())
    lengths = pc.binary_length(wide).fill_null(0).to_numpy().astype("<i8")
    sizes = pa.Array.from_buffers(pa.binary(_SIZE), len(array), [None, pa.py_buffer(lengths)])
    nothing = pa.scalar(b"", pa.large_binary())  # not of the module: it imports pandas, if there
    joined = pc.binary_join_element_wise(sizes.cast(pa.large_binary()), wide, nothing)
    _, ends, data = joined.buffers()
    found = np.frombuffer(ends, np.int64, len(array) + 1, 8 * joined.offset)
    return Encoded(memoryview(b"" if data is None else data).cast("B"), found)


def _sized_each(values: Iterable[bytes | None]) -> Encoded:
    found = [
        b"" if value is None else len(value).to_bytes(_SIZE, "little") + value for value in values
    ]
    ends = np.fromiter(accumulate(map(len, found), initial=0), np.int64, len(found) + 1)
    return Encoded(memoryview(b"".join(found)), ends)


def _range_bytes(value: Reference) -> bytes:
    length = -1 if value.length is None else value.length
    ends = (each.to_bytes(8, "little", signed=True) for each in (value.start, length))
    return b"".join(ends) + value.uri.encode()
