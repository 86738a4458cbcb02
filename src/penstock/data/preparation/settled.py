"""Rows as a table. Columns that have no value in any of them wait as gaps: other rows tell their
type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.data.columns import Unsupported, column_of_value
from penstock.data.preparation.tables import is_gap
from penstock.data.rows import Blocks, as_table
from penstock.data.types import Types

Row = Mapping[str, Any]


def table_of(given: Any, types: Types | None = None) -> pa.Table:
    """What `Blocks` takes, in one table of at least one row; gaps are columns of null.

    Raises BadInput: not alike, values that no column can have, or that are not what `types` says.
    """
    try:
        table = as_table(given)
        if table is not None:
            gaps = {field.name: table[field.name] for field in table.schema if is_gap(field)}
            return _with(gaps, table.drop_columns(list(gaps)), table.column_names, types)
        rows = given if isinstance(given, list) else list(given)
        if not rows or not all(isinstance(each, Mapping) for each in rows):
            return pa.concat_tables(list(Blocks(rows, types)))
        if not rows[0]:
            raise BadInput("a row has no column", "Give every row the same columns.")
        gaps = _gaps(rows)
        if gaps:
            rows = [{k: v for k, v in row.items() if k not in gaps} for row in rows]
        return _with(gaps, rows, list(given[0]), types)
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        raise BadInput(
            f"a value cannot be kept: {error}",
            "Give numbers of at most 64 bits, Unicode text, bytes, times and arrays.",
        ) from None


def _with(
    gaps: Mapping[str, Any], given: Any, names: Sequence[str], types: Types | None
) -> pa.Table:
    """The rows beside their gaps, in the order of `names`."""
    if len(gaps) == len(names):
        return pa.table(dict(gaps))
    known = {name: each for name, each in (types or {}).items() if name not in gaps}
    table = pa.concat_tables(list(Blocks(given, known)))
    if not gaps:
        return table
    for name, values in gaps.items():
        table = table.append_column(name, values)
    return table.select(list(names))


def _gaps(rows: Sequence[Row]) -> dict[str, pa.Array]:
    """The columns of the first row that no row has a value for."""
    names = set(rows[0])
    waiting = names
    for row in rows:
        waiting = {name for name in waiting if not _has_value(name, row.get(name))}
        if not waiting:
            return {}
    for number, row in enumerate(rows):
        if row.keys() != names:
            told = [f'"{name}" is not in every row (row {number})'
                    for name in sorted(map(str, row.keys() ^ names))]  # fmt: skip
            raise BadInput("; ".join(told), "Give all rows the same columns.", differences=told)
    return {name: _gap([row[name] for row in rows]) for name in rows[0] if name in waiting}


def _has_value(name: str, value: Any) -> bool:
    try:
        column = column_of_value(name, value)
    except Unsupported:
        return True  # told by whoever makes the table
    return column is not None and column.known


def _gap(values: list[Any]) -> pa.Array:
    if all(value is None for value in values):
        return pa.nulls(len(values))
    return pa.array([None if value is None else [] for value in values], pa.list_(pa.null()))
