"""Arrow's numbers as NumPy and back, through their buffers.

`pa.array`, `pa.scalar` and `to_numpy` import pandas where it is installed, which costs every rank
and every worker the better part of a second; these do not. Only for arrays of plain numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]


def numbers(array: pa.Array) -> Array:
    """Values of an array of numbers or flags: a view, but for flags a copy of a byte each.

    Where a value is missing, whatever lies there: see `present`.
    """
    if pa.types.is_boolean(array.type):
        return _bits(array.buffers()[1], array.offset, len(array))
    dtype = np.dtype(array.type.to_pandas_dtype())
    data = array.buffers()[1]
    if data is None or not len(array):
        return np.empty(len(array), dtype)
    return np.frombuffer(data, dtype, len(array), array.offset * dtype.itemsize)


def present(array: pa.Array) -> Flags:
    """Where there is a value: bool [len(array)]."""
    bitmap = array.buffers()[0]
    if bitmap is None:
        return np.full(len(array), array.null_count == 0)
    return _bits(bitmap, array.offset, len(array))


def _bits(data: pa.Buffer | None, start: int, many: int) -> Flags:
    if data is None or not many:
        return np.zeros(many, bool)
    first = start // 8
    octets = np.frombuffer(data, np.uint8, (start + many + 7) // 8 - first, first)
    flags = np.unpackbits(octets, bitorder="little")
    return flags[start - 8 * first : start - 8 * first + many].view(bool)


def array_of(values: Array) -> pa.Array:
    """A contiguous one-dimensional array of numbers (not flags) as Arrow; without a copy."""
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])
