"""Columns: what a dataset keeps, in Arrow, and the way to NumPy and back.

| kind      | dtype         | in Arrow                         | in a batch               |
|-----------|---------------|----------------------------------|--------------------------|
| number    | NumPy's name  | the primitive                    | tensor [B]               |
| tensor    | NumPy's name  | fixed_shape_tensor               | tensor [B, *shape]       |
| list      | NumPy's name  | list of the primitive            | list of arrays [any]     |
| text      | `string`      | string                           | list of str              |
| bytes     | `binary`      | binary                           | list of bytes            |
| time      | Arrow's name  | timestamp, date, time, …         | list of datetime objects |
| reference | `range`       | struct of uri, start and length  | list of `Reference`      |

The kind says how values are kept; the meaning (`types.py`) what they are: an encoded image is of
the kind bytes. A reader that knows no meanings still reads every value. In a shard the Arrow field
of a column carries both as metadata, `penstock.meaning` and `penstock.options`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.base.errors import BadInput
from penstock.base.hashing import canonical_json
from penstock.data.plain import numbers, present
from penstock.data.references import REFERENCE, Reference, reference_of

Array = npt.NDArray[Any]
Values = Array | list[Any]

MEANING, OPTIONS = b"penstock.meaning", b"penstock.options"  # metadata of an Arrow field

_DTYPES = {"bool", "float16", "float32", "float64"}
_DTYPES |= {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}


_NO_DTYPE = "null"  # of a list that so far is empty in every row


@dataclass(frozen=True, slots=True)
class Column:
    """name, kind and dtype as in the table above.

    shape    of one sample; () for anything but a tensor
    meaning  what the values are, such as "encoded-image"; "" where nobody said
    options  of the meaning, as JSON has them: {"format": "jpeg"}. Part of equality, not of the
             hash, so that a column can be the key of a dictionary
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...] = ()
    meaning: str = ""
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        if self.kind == "list":
            return f"list of {self.dtype}" if self.dtype != _NO_DTYPE else "empty list"
        return f"{self.dtype}{list(self.shape)}" if self.shape else self.dtype

    @property
    def storage(self) -> tuple[str, str, tuple[int, ...]]:
        """What decides how values are kept: kind, dtype, shape."""
        return self.kind, self.dtype, self.shape

    @property
    def known(self) -> bool:
        """Whether its dtype is known; a list that is empty in every row has none."""
        return self.dtype != _NO_DTYPE

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
    if isinstance(value, Reference):
        return Column(name, "reference", "range")
    return _column_of_array(name, value)


def _column_of_array(name: str, value: Any) -> Column:
    if isinstance(value, list | tuple) and not value:
        return Column(name, "list", _NO_DTYPE)
    if isinstance(value, list | tuple) or hasattr(value, "__array__"):
        try:
            array = np.asarray(value)
        except (ValueError, TypeError, RuntimeError):
            raise Unsupported("a list of uneven shape") from None
    else:
        array = None
    if array is None or array.dtype.name not in _DTYPES:
        if isinstance(value, list | tuple):
            raise Unsupported(f"a list of {_element_name(value)}")
        try:
            return column_of_type(name, pa.scalar(value).type)  # datetimes and the like
        except (pa.ArrowException, TypeError, ValueError, Unsupported):
            raise Unsupported(_type_name(value, array)) from None
    if array.shape == (0,):
        return Column(name, "list", array.dtype.name)
    if 0 in array.shape:
        raise Unsupported(f"an empty array of shape {list(array.shape)}")
    return Column(name, "tensor" if array.shape else "number", array.dtype.name, array.shape)


def _element_name(values: Sequence[Any]) -> str:
    return " and ".join(sorted({type(each).__name__ for each in values}))


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
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return Column(name, "list", _dtype(kind.value_type))
    if is_reference(kind):
        return Column(name, "reference", "range")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return Column(name, "text", "string")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or kind == pa.binary_view():
        return Column(name, "bytes", "binary")
    if pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        return Column(name, "time", str(kind))
    return Column(name, "number", _dtype(kind))


def column_of_field(found: pa.Field) -> Column:
    """The column that keeps an Arrow field, with the meaning that its metadata tell.

    Raises Unsupported.
    """
    column = column_of_type(found.name, found.type)
    told = found.metadata or {}
    if not (meaning := told.get(MEANING, b"").decode(errors="replace")):
        return column
    try:
        options = json.loads(told.get(OPTIONS, b"{}"))
    except ValueError:
        options = {}
    return replace(column, meaning=meaning, options=options if isinstance(options, dict) else {})


def is_reference(kind: pa.DataType) -> bool:
    """Whether an Arrow type is the struct of a reference, its fields in any order."""
    return pa.types.is_struct(kind) and {each.name for each in kind} == {
        each.name for each in REFERENCE
    }


def common(one: Column, other: Column) -> Column | None:
    """The column that keeps the values of both, with the meaning of the first; None where none
    does.

    A list keeps one-dimensional tensors of its dtype; an empty list fits any list.
    """
    if one.storage == other.storage:
        return one
    for column in (one, other):
        if column.kind != "list" and (column.kind != "tensor" or len(column.shape) != 1):
            return None
    dtypes = {one.dtype, other.dtype} - {_NO_DTYPE}
    if len(dtypes) > 1:
        return None
    return replace(one, kind="list", dtype=dtypes.pop() if dtypes else _NO_DTYPE, shape=())


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
    if column.kind == "reference":
        return REFERENCE
    value = pa.from_numpy_dtype(np.dtype(column.dtype))
    if column.kind == "list":
        return pa.list_(value)
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
    """The schema of every shard; a column with a meaning carries it as metadata of its field."""
    return pa.schema(
        [pa.field(each.name, arrow_type(each), metadata=_told(each)) for each in columns]
    )


def _told(column: Column) -> dict[bytes, bytes] | None:
    if not column.meaning:
        return None
    options = {OPTIONS: canonical_json(column.options)} if column.options else {}
    return {MEANING: column.meaning.encode(), **options}


def described(table: pa.Table, columns: Sequence[Column]) -> pa.Table:
    """The same values under the columns' schema, metadata included; copies nothing."""
    return pa.table([table[each.name] for each in columns], schema=arrow_schema(columns))


def tensor_array(values: Array) -> pa.Array:
    """NumPy [n, *shape] as a fixed_shape_tensor array; without a copy unless it is bool."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    storage = pa.FixedSizeListArray.from_arrays(flat, math.prod(values.shape[1:]))
    kind = pa.fixed_shape_tensor(flat.type, list(values.shape[1:]))
    return pa.ExtensionArray.from_storage(kind, storage)


def list_array(values: Sequence[Any], column: Column) -> pa.Array:
    """Arrays of any length, None among them, as a list array of the column's dtype."""
    pieces = [np.asarray([] if v is None else v, column.dtype).reshape(-1) for v in values]
    ends = np.cumsum([0, *map(len, pieces)], dtype=np.int32)
    flat = np.concatenate(pieces) if pieces else np.empty(0, column.dtype)
    gaps = [value is None for value in values]
    mask = pa.array(gaps) if any(gaps) else None
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(flat), mask=mask)


def canonical(table: pa.Table, columns: Sequence[Column]) -> pa.Table:
    """A table of any equivalent types in the types in which the columns are kept.

    Equivalent are also one-dimensional tensors and lists, as far as the lengths allow.
    Raises BadInput for values that the column cannot keep.
    """
    arrays = []
    for column in columns:
        found, wanted = table[column.name], arrow_type(column)
        if found.type != wanted:
            try:
                found = _cast(found, column, wanted)
            except pa.ArrowException as error:
                raise BadInput(
                    f'column "{column.name}" is {found.type}, which does not become {column}: '
                    f"{error}",
                    "Give values of one type and shape, or another type for the column.",
                    column=column.name,
                ) from None
        arrays.append(found)
    return pa.table(arrays, schema=arrow_schema(columns))


def _cast(found: pa.ChunkedArray, column: Column, wanted: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_dictionary(found.type):
        found = found.cast(found.type.value_type)
    if isinstance(found.type, pa.FixedShapeTensorType):
        storages = [chunk.storage for chunk in found.chunks]
        found = pa.chunked_array(storages, found.type.storage_type)
    if column.kind == "reference":
        return pa.chunked_array([_in_order(chunk) for chunk in found.chunks], wanted)
    if column.kind != "tensor":
        return found.cast(wanted)
    storages = [chunk.cast(wanted.storage_type) for chunk in found.chunks]
    return pa.chunked_array([pa.ExtensionArray.from_storage(wanted, s) for s in storages], wanted)


def _in_order(structs: pa.StructArray) -> pa.StructArray:
    """References with the fields in our order and types."""
    fields = [pc.struct_field(structs, each.name).cast(each.type) for each in REFERENCE]
    return pa.StructArray.from_arrays(fields, fields=list(REFERENCE), mask=structs.is_null())


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
        return np.where(present(array), numbers(array), np.array(np.nan, column.dtype))
    return numbers(array)


def values_of(array: pa.Array, column: Column, store: str = "") -> list[Any]:
    """The values of a column that NumPy cannot hold in one array; None where one is missing.

    A list gives arrays [its length], views into Arrow; a reference gives `Reference`.
    store  URL of the blob store that a reference of the form sha256:… reads from
    """
    if column.kind == "reference":
        return [reference_of(value, store) for value in array.to_pylist()]
    if column.kind != "list":
        found: list[Any] = array.to_pylist()
        return found
    flat, ends = elements_of(array, column)
    pieces = [flat[a:b] for a, b in pairwise(ends)]
    if not array.null_count:
        return pieces
    there = array.is_valid().to_pylist()
    return [piece if valid else None for piece, valid in zip(pieces, there, strict=True)]


def elements_of(array: pa.ListArray, column: Column) -> tuple[Array, Array]:
    """The elements of all lists of a column, a view, and where the first list begins and each ends
    [rows + 1]; what belongs to missing ones means nothing."""
    ends = numbers(array.offsets)
    start = int(ends[0]) if len(ends) else 0
    flat = _plain(array.flatten() if not array.null_count else _slots(array), column)
    return flat, ends - start


def _slots(array: pa.ListArray) -> pa.Array:
    """Every element that the offsets span, those behind missing lists included."""
    ends = array.offsets
    return array.values.slice(ends[0].as_py(), ends[-1].as_py() - ends[0].as_py())


def to_numpy(table: pa.Table, columns: Sequence[Column], store: str = "") -> dict[str, Values]:
    """A table's columns: numbers and tensors as NumPy [n, *shape], all else as lists (see
    `values_of`, also for `store`)."""
    return {
        each.name: fixed_values(one_chunk(table[each.name]), each)
        if each.fixed
        else values_of(one_chunk(table[each.name]), each, store)
        for each in columns
        if each.name in table.column_names
    }
