"""Columns as Spark has them, both ways.

    number   the type of its size; uint8 to uint32 the next larger one, uint64 decimal(20, 0),
             float16 float
    tensor   array, in an array for each further dimension
    list     array
    text     string; bytes: binary
    time     date, timestamp (with a zone), timestamp_ntz (without), interval day to second
    reference  struct of uri, start, length

A meaning is kept as metadata of the field. Times of day are what Spark has no type for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.data.clusters.refusing import refuse_types
from penstock.data.columns import MEANING, OPTIONS, Column, one_chunk

_NUMBERS = {
    "bool": "boolean", "int8": "byte", "int16": "short", "int32": "integer", "int64": "long",
    "uint8": "short", "uint16": "integer", "uint32": "long", "uint64": "decimal(20,0)",
    "float16": "float", "float32": "float", "float64": "double",
}  # fmt: skip


def spark_fields(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """The fields of a StructType, as its JSON has them. Raises BadInput: times of day."""
    return [
        {"name": each.name, "type": _type(each), "nullable": True, "metadata": _told(each)}
        for each in columns
    ]


def _told(column: Column) -> dict[str, str]:
    if not column.meaning:
        return {}
    options = {OPTIONS.decode(): json.dumps(column.options)} if column.options else {}
    return {MEANING.decode(): column.meaning, **options}


def _type(column: Column) -> Any:
    if column.kind == "number":
        return _NUMBERS[column.dtype]
    if column.kind in ("text", "bytes"):
        return "string" if column.kind == "text" else "binary"
    if column.kind == "time":
        return _time(column)
    if column.kind == "reference":
        names = {"uri": "string", "start": "long", "length": "long"}
        fields = [{"name": name, "type": kind, "nullable": True, "metadata": {}}
                  for name, kind in names.items()]  # fmt: skip
        return {"type": "struct", "fields": fields}
    found: Any = _NUMBERS[column.dtype]
    for _ in column.shape or (0,):
        found = {"type": "array", "elementType": found, "containsNull": True}
    return found


def _time(column: Column) -> str:
    if column.dtype.startswith("date"):
        return "date"
    if column.dtype.startswith("timestamp"):
        return "timestamp" if "tz=" in column.dtype else "timestamp_ntz"
    if column.dtype.startswith("duration"):
        return "interval day to second"
    raise BadInput(
        f'column "{column.name}" holds {column.dtype}, for which Spark has no type',
        "Leave it out: ps.spark.read(spark, reference, columns=[…]).",
        column=column.name,
    )


def as_spark(table: pa.Table, columns: Sequence[Column], schema: pa.Schema) -> pa.Table:
    """Rows of a shard in the Arrow types that Spark expects of them."""
    arrays = []
    for column, field in zip(columns, schema, strict=True):
        values = table[column.name]
        if column.kind == "tensor":
            arrays.append(_nested(one_chunk(values), column, field.type))
        else:
            arrays.append(values.cast(field.type) if values.type != field.type else values)
    return pa.table(arrays, schema=schema)


def _nested(tensors: pa.ExtensionArray, column: Column, kind: pa.DataType) -> pa.Array:
    """Tensors as lists in lists; values are not copied."""
    kinds = [kind]
    for _ in column.shape[1:]:
        kinds.append(kinds[-1].value_type)
    found = tensors.storage.flatten().cast(kinds[-1].value_type)
    for size, each in zip(reversed(column.shape), reversed(kinds), strict=True):
        ends = np.arange(0, len(found) + 1, size, dtype=np.int32)
        found = pa.ListArray.from_arrays(pa.array(ends), found, type=each)
    return found


def arrow_schema_of(fields: Sequence[Any]) -> pa.Schema:
    """Of a DataFrame's fields, as a version would keep them; zones of times are UTC.

    Raises BadInput that lists the columns that no version can hold.
    """
    kinds = {each.name: _arrow(each.dataType) for each in fields}
    told = {each.name: each.dataType.simpleString() for each in fields}
    refuse_types(
        kinds,
        told,
        "Cast them to numbers, text, bytes, times or arrays of numbers, or drop them; the fields "
        'of a struct can be columns: df.select("s.*").',
    )
    return pa.schema(list(kinds.items()))


def _arrow(kind: Any) -> pa.DataType | None:
    from pyspark.sql.pandas.types import to_arrow_type

    try:
        return in_utc(to_arrow_type(kind, timezone="UTC"))
    except Exception:  # noqa: BLE001 - of many kinds; a type that Arrow has not is no column
        return None


def in_utc(kind: pa.DataType) -> pa.DataType:
    """Times with a zone are the same moments in UTC: a session's zone is no part of the data."""
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pa.timestamp(kind.unit, tz="UTC")
    return kind


def moments_in_utc(table: pa.Table) -> pa.Table:
    """A table from Spark, its zones replaced by UTC; nothing is copied."""
    fields = [pa.field(each.name, in_utc(each.type)) for each in table.schema]
    return table.cast(pa.schema(fields))
