"""Columns: what a dataset keeps, in Arrow, and the way to NumPy and back.

| kind   | dtype         | in Arrow                 | in a batch               |
|--------|---------------|--------------------------|--------------------------|
| number | NumPy's name  | the primitive            | tensor [B]               |
| tensor | NumPy's name  | fixed_shape_tensor       | tensor [B, *shape]       |
| text   | `string`      | string                   | list of str              |
| bytes  | `binary`      | binary                   | list of bytes            |
| time   | Arrow's name  | timestamp, date, time, … | list of datetime objects |

Semantic types (image, audio, tokens, …) will be further kinds; a reader that does not know a kind
still knows its Arrow type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.base.errors import BadInput

Array = npt.NDArray[Any]
Values = Array | list[Any]

_DTYPES = {"bool", "float16", "float32", "float64"}
_DTYPES |= {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


@dataclass(frozen=True, slots=True)
class Column:
    """name, kind and dtype as in the table above; shape of one sample, () for a number."""

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}" if self.shape else self.dtype

    @property
    def fixed(self) -> bool:
        """Whether every value has the same number of bytes, so that NumPy can gather them."""
        return self.kind in ("number", "tensor")


class Unsupported(Exception):
    """Inside this room only: a type that no column can have. Its text describes the type."""


def column_of_value(name: str, value: Any) -> Column | None:
    """The column that one value of a row asks for; None for a missing value.

    Raises Unsupported.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return Column(name, "text", "string")
    if isinstance(value, bytes | bytearray | memoryview):
        return Column(name, "bytes", "binary")
    if isinstance(value, bool | np.bool_):
        return Column(name, "number", "bool")
    if isinstance(value, int):
        return Column(name, "number", "int64" if -(2**63) <= value < 2**63 else "uint64")
    if isinstance(value, float) and not isinstance(value, np.generic):
        return Column(name, "number", "float64")
    return _column_of_array(name, value)


def _column_of_array(name: str, value: Any) -> Column:
    if isinstance(value, list | tuple) or hasattr(value, "__array__"):
        try:
            array = np.asarray(value)
        except (ValueError, TypeError, RuntimeError):
            raise Unsupported("a list of uneven shape") from None
    else:
        array = None
    if array is None or array.dtype.name not in _DTYPES:
        try:
            return column_of_type(name, pa.scalar(value).type)  # datetimes and the like
        except (pa.ArrowException, TypeError, ValueError, Unsupported):
            raise Unsupported(_type_name(value, array)) from None
    if 0 in array.shape:
        raise Unsupported(f"an empty array of shape {list(array.shape)}")
    return Column(name, "tensor" if array.shape else "number", array.dtype.name, array.shape)


def _type_name(value: Any, array: Array | None) -> str:
    name = type(value).__name__
    return name if array is None else f"{name} of {array.dtype}"


def column_of_type(name: str, kind: pa.DataType) -> Column:
    """The column that keeps an Arrow type. Raises Unsupported."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return Column(name, "tensor", _dtype(kind.value_type), tuple(kind.shape))
    if pa.types.is_dictionary(kind):
        return column_of_type(name, kind.value_type)
    if pa.types.is_fixed_size_list(kind) and kind.list_size > 0:
        return Column(name, "tensor", _dtype(kind.value_type), (kind.list_size,))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return Column(name, "text", "string")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or kind == pa.binary_view():
        return Column(name, "bytes", "binary")
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return Column(name, "time", str(kind))
    return Column(name, "number", _dtype(kind))


def _dtype(kind: pa.DataType) -> str:
    try:
        name: str = np.dtype(kind.to_pandas_dtype()).name
    except (NotImplementedError, TypeError):
        name = ""
    if name not in _DTYPES or pa.types.is_nested(kind):
        raise Unsupported(str(kind))
    return name


def arrow_type(column: Column) -> pa.DataType:
    """The Arrow type in which a column is kept."""
    if column.kind == "text":
        return pa.string()
    if column.kind == "bytes":
        return pa.binary()
    if column.kind == "time":
        return pa.type_for_alias(column.dtype) if "[" not in column.dtype else _time(column.dtype)
    value = pa.from_numpy_dtype(np.dtype(column.dtype))
    return pa.fixed_shape_tensor(value, column.shape) if column.shape else value


def _time(text: str) -> pa.DataType:
    """Arrow's name of a type of time with a unit, such as "timestamp[us, tz=UTC]"."""
    name, rest = text.removesuffix("]").split("[", 1)
    unit, _, zone = rest.partition(", tz=")
    if name == "timestamp":
        return pa.timestamp(unit, tz=zone or None)
    found: pa.DataType = pa.type_for_alias(f"{name}[{unit}]")
    return found


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """The schema of every shard."""
    return pa.schema([(each.name, arrow_type(each)) for each in columns])


def tensor_array(values: Array) -> pa.Array:
    """NumPy [n, *shape] as a fixed_shape_tensor array; without a copy unless it is bool."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    storage = pa.FixedSizeListArray.from_arrays(flat, math.prod(values.shape[1:]))
    kind = pa.fixed_shape_tensor(flat.type, list(values.shape[1:]))
    return pa.ExtensionArray.from_storage(kind, storage)


def canonical(table: pa.Table, columns: Sequence[Column]) -> pa.Table:
    """A table of any equivalent types in the types in which the columns are kept."""
    arrays = []
    for column in columns:
        found, wanted = table[column.name], arrow_type(column)
        if found.type != wanted:
            if pa.types.is_dictionary(found.type):
                found = found.cast(found.type.value_type)
            found = _as_tensor(found, column) if column.kind == "tensor" else found.cast(wanted)
        arrays.append(found)
    return pa.table(arrays, schema=arrow_schema(columns))


def _as_tensor(found: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    kind = arrow_type(column)
    storages = [chunk.cast(kind.storage_type) for chunk in found.chunks]
    return pa.chunked_array([pa.ExtensionArray.from_storage(kind, s) for s in storages], kind)


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A column as one contiguous array; without a copy when it is one already."""
    if column.num_chunks == 1:
        return column.chunk(0)
    if isinstance(column.type, pa.FixedShapeTensorType):
        storages = pa.chunked_array([c.storage for c in column.chunks], column.type.storage_type)
        return pa.ExtensionArray.from_storage(column.type, one_chunk(storages))
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def fixed_values(array: pa.Array, column: Column) -> Array:
    """A number or tensor column as NumPy [n, *shape]; a view except for bool and nulls.

    Missing numbers become NaN where the dtype has one; otherwise BadInput.
    """
    if column.kind == "tensor":
        flat = array.storage.flatten()
        return _plain(flat, column).reshape(len(array), *column.shape)
    return _plain(array, column)


def _plain(array: pa.Array, column: Column) -> Array:
    if array.null_count:
        if not column.dtype.startswith("float"):
            raise BadInput(
                f'column "{column.name}" has missing values, which {column.dtype} cannot hold',
                "Fill them in the prepare function, or leave the column out with columns=[…].",
                column=column.name,
            )
        array = pc.fill_null(array, pa.scalar(float("nan"), array.type))
    values: Array = array.to_numpy(zero_copy_only=column.dtype != "bool")
    return values


def to_numpy(table: pa.Table, columns: Sequence[Column]) -> dict[str, Values]:
    """A table's columns: numbers and tensors as NumPy [n, *shape], all else as lists."""
    return {
        each.name: fixed_values(one_chunk(table[each.name]), each)
        if each.fixed
        else table[each.name].to_pylist()
        for each in columns
        if each.name in table.column_names
    }
