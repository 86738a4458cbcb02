"""Statistics of every shard and column: the manifest's table "statistics".

So that a reader may pass over shards that cannot hold what it looks for, and that drift inside a
version can be seen. Read only when asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.data.columns import Column

SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("number", pa.int64()),
        ("column", pa.string()),
        ("nulls", pa.int64()),
        ("bytes", pa.int64()),
        ("min", pa.float64()),
        ("max", pa.float64()),
    ]
)


def statistics_table(
    table: pa.Table, columns: Sequence[Column], split: str, number: int
) -> pa.Table:
    """One row per column of a shard.

    nulls     missing values
    bytes     in Arrow, uncompressed
    min, max  of all numbers or elements, NaN left out; of text and bytes: of the length; of times:
              whole numbers of the unit (see `times.py`); whole numbers beyond 2**53 are rounded;
              missing where there is nothing to compare
    """
    rows: list[dict[str, Any]] = []
    for column in columns:
        values = table[column.name]
        low, high = _ends(values, column)
        ends = {"min": low, "max": high}
        found = {"column": column.name, "nulls": values.null_count, "bytes": values.nbytes}
        rows.append({"split": split, "number": number, **found, **ends})
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _ends(values: pa.ChunkedArray, column: Column) -> tuple[float | None, float | None]:
    if column.kind == "tensor":
        flat = [chunk.storage.flatten() for chunk in values.chunks]
        values = pa.chunked_array(flat, values.type.value_type)
    elif column.kind == "text":
        values = pc.utf8_length(values)
    elif column.kind == "bytes":
        values = pc.binary_length(values)
    elif column.kind == "time":
        values = values.cast(pa.int32() if values.type.bit_width == 32 else pa.int64())
    elif column.kind != "number":
        return None, None
    if values.type == pa.float16():
        numbers = values.drop_null().to_numpy()
        numbers = numbers[~np.isnan(numbers)]
        return (float(numbers.min()), float(numbers.max())) if numbers.size else (None, None)
    ends = pc.min_max(values.cast(pa.uint8()) if pa.types.is_boolean(values.type) else values)
    return _plain(ends["min"].as_py()), _plain(ends["max"].as_py())


def _plain(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
