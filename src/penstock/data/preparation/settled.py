"""Columns that have no value in a unit: other units tell their type, so here they wait as gaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import pyarrow as pa

from penstock.data.columns import Unsupported, column_of_value
from penstock.data.preparation.chain import Flow
from penstock.data.preparation.tables import is_gap

Row = Mapping[str, Any]


def settle(flows: Iterable[Flow]) -> tuple[Any, dict[str, pa.Array]] | None:
    """What `Blocks` takes (None where nothing is left), and the columns that no row has a value
    for; None without rows.

    Rows are held back until every column has a value, at most all rows of the unit.
    """
    items = (flow for flow in flows if len(flow))
    first = next(items, None)
    if first is None:
        return None
    if first.table is not None:
        return _tables(chain([first], items))
    rows = (row for flow in chain([first], items) for row in flow.rows())
    held: list[Row] = []
    open_columns: set[str] | None = None
    for row in rows:
        held.append(row)
        if open_columns is None:
            open_columns = set(row)
        open_columns = {name for name in open_columns if not _has_value(name, row.get(name))}
        if not open_columns:
            return chain(held, rows), {}
    gaps = {name: _gap(name, held) for name in sorted(open_columns or ())}
    if gaps and len(gaps) == len(held[0]):
        return None, gaps
    return [{k: v for k, v in row.items() if k not in gaps} for row in held], gaps


def _tables(flows: Iterator[Flow]) -> tuple[Any, dict[str, pa.Array]]:
    """Tables know their types, but for columns of null."""
    tables = [flow.as_table() for flow in flows]
    names = [
        field.name
        for field in tables[0].schema
        if all(each.schema.get_field_index(field.name) >= 0 for each in tables)
        and all(is_gap(each.schema.field(field.name)) for each in tables)
    ]
    gaps = {name: pa.concat_arrays([c for t in tables for c in t[name].chunks]) for name in names}
    if names and len(names) == tables[0].num_columns:
        return None, gaps
    return [table.drop_columns(names) for table in tables] if names else tables, gaps


def _has_value(name: str, value: Any) -> bool:
    try:
        column = column_of_value(name, value)
    except Unsupported:
        return True  # told by whoever makes the table
    return column is not None and column.known


def _gap(name: str, rows: list[Row]) -> pa.Array:
    values = [row.get(name) for row in rows]
    if all(value is None for value in values):
        return pa.nulls(len(values))
    return pa.array([None if value is None else [] for value in values], pa.list_(pa.null()))
