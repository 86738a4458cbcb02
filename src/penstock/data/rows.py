"""What a prepare function gives, as Arrow blocks of one schema.

It may give rows (an iterable of dictionaries), columns (a dictionary of arrays of equal length),
or Arrow (a table, an iterable of tables or batches, anything with `__arrow_c_stream__`, such as a
frame of pandas, polars or DuckDB). Rows that do not fit the first ones are collected, not fixed:
the error at the end lists every difference once, with its first row.

Arrays of one dimension that are not equally long make a column of lists. Whether they are is seen
in the first block; where it may come later, say so: `types={"words": Tokens()}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.data.columns import (
    Column,
    Unsupported,
    arrow_type,
    canonical,
    column_of_field,
    column_of_value,
    common,
    described,
    list_array,
    tensor_array,
)
from penstock.data.references import Reference, references_array
from penstock.data.types import Types, apply_types, check_values, infer_types, varying

BLOCK_ROWS = 4096
BLOCK_BYTES = 16 << 20
_MOST_DIFFERENCES = 50  # different ones; beyond, nobody reads on
_ROWS_FIX = (
    "Give rows (dicts of numbers, text and arrays), a dict of equally long arrays, or an Arrow "
    "table."
)


class Blocks:
    """Iterate it once: blocks (`pa.Table` in the columns' types, at most 4096 rows each).

    types    what the columns mean, by name; images in bytes are seen without
    columns  known from the first block on, None before

    Raises BadInput: nothing there, mixed schemas (all differences), types that are not kept,
    values that are not what `types` says (the first rows).
    """

    def __init__(self, given: Any, types: Types | None = None) -> None:
        self._given = given
        self._types = dict(types or {})
        self._varying = varying(self._types)
        self._gaps: dict[str, list[int]] = {}  # in the first block: the rows without a value
        self.columns: list[Column] | None = None

    def __iter__(self) -> Iterator[pa.Table]:
        differences = Differences()
        given = 0
        for table in self._tables(differences):
            if not differences.found:
                check_values(table, self.columns or [], self._types, given)
                yield from _cut(table)
            given += table.num_rows
        differences.raise_if_any()
        if not given:
            raise BadInput("the prepare function gave no rows", _ROWS_FIX)

    def _tables(self, differences: Differences) -> Iterator[pa.Table]:
        given = self._given
        if (whole := as_table(given)) is not None:
            yield from self._fit([whole], differences)
            return
        if not isinstance(given, Iterable) or isinstance(given, str | bytes):
            raise BadInput(f"the prepare function gave {_a(given)}, which is no data", _ROWS_FIX)
        items = iter(given)
        first = next(items, None)
        if first is None:
            return
        items = chain([first], items)
        if isinstance(first, Mapping):
            yield from self._from_rows(items, differences)
        else:
            yield from self._fit(map(_must_be_table, items), differences)

    def _fit(self, tables: Iterable[pa.Table], differences: Differences) -> Iterator[pa.Table]:
        row = 0
        for table in tables:
            found = _columns_of(table)
            if self.columns is None:
                self.columns = apply_types(list(found.values()), self._types)
                self.columns = infer_types(table, self.columns)
            differences.compare({each.name: each for each in self.columns}, found, row)
            if not differences.found:
                yield canonical(table, self.columns)
            row += table.num_rows

    def _from_rows(self, rows: Iterable[Any], differences: Differences) -> Iterator[pa.Table]:
        block: list[Mapping[str, Any]] = []
        known: dict[str, Column | None] = {}
        size = 0
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise BadInput(f"row {number} is {_a(row)}, not a dict", _ROWS_FIX, row=number)
            size += self._merge(known, row, number, differences)
            if differences.found:
                block = []
                if len(differences.found) >= _MOST_DIFFERENCES:
                    return
                continue
            block.append(row)
            settled = all(column is not None and column.known for column in known.values())
            if settled and (len(block) >= BLOCK_ROWS or size >= BLOCK_BYTES):
                if not self._first_gaps(known, differences):
                    yield self._block(block, known)
                block, size = [], 0
        if not self._first_gaps(known, differences) and block:
            yield self._block(block, known)

    def _first_gaps(self, known: Mapping[str, Column | None], differences: Differences) -> bool:
        """Note tensors that miss values in the first block; a list may."""
        for name, rows in self._gaps.items():
            column = known.get(name)
            if self.columns is None and column is not None and column.kind == "tensor":
                for row in rows:
                    differences.add(_missing(name), row)
        self._gaps = {}
        return bool(differences.found)

    def _block(self, block: list[Mapping[str, Any]], known: dict[str, Column | None]) -> pa.Table:
        empty = [name for name, each in known.items() if each is None or not each.known]
        if empty:
            lists = known[empty[0]] is not None
            raise BadInput(
                f'column "{empty[0]}" has {"only empty lists" if lists else "no value in any row"}'
                ", so it has no type",
                "Leave it out, or give at least one value.",
                column=empty[0],
            )
        columns = [column for column in known.values() if column is not None]
        columns = self.columns or apply_types(columns, self._types)
        table = pa.table({c.name: _array([row[c.name] for row in block], c) for c in columns})
        if self.columns is None:
            self.columns = infer_types(table, columns)
            known.update({each.name: each for each in self.columns})
        return described(table, self.columns)

    def _merge(
        self,
        known: dict[str, Column | None],
        row: Mapping[str, Any],
        number: int,
        differences: Differences,
    ) -> int:
        """Compare a row with the columns known so far; returns its size in bytes, roughly."""
        found, size = _columns_of_row(known, row, number, differences)
        for name in self._varying & found.keys():
            column = found[name]
            if column is not None:
                found[name] = common(column, Column(name, "list", "null")) or column
        first = self.columns is None  # nothing was given out yet: arrays may become lists
        for name, column in found.items() if first else ():
            if column is None:
                self._gaps.setdefault(name, []).append(number)
        if not known:
            known.update(found)
            return size
        for name, column in found.items():
            if name in known and column is not None and first:
                before = known[name]
                known[name] = column if before is None else common(before, column) or before
        differences.compare(known, found, number, gaps=not first)
        return size


def _cut(table: pa.Table) -> Iterator[pa.Table]:
    rows = max(1, min(BLOCK_ROWS, BLOCK_BYTES * table.num_rows // max(1, table.nbytes)))
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)


def _array(values: list[Any], column: Column) -> pa.Array:
    if column.kind == "tensor":
        return tensor_array(np.stack([np.asarray(value, column.dtype) for value in values]))
    if column.kind == "list":
        return list_array(values, column)
    if column.kind == "reference":
        return references_array(values)
    if column.kind == "number":
        if all(value is not None for value in values):
            return pa.array(np.array(values, column.dtype))
        values = [value.item() if hasattr(value, "item") else value for value in values]
    elif column.kind == "bytes":
        values = [value if value is None else bytes(value) for value in values]
    return pa.array(values, arrow_type(column))


def as_table(given: Any) -> pa.Table | None:
    """A table where `given` is one or a dict of columns."""
    if isinstance(given, pa.Table):
        return given
    if isinstance(given, pa.RecordBatch):
        return pa.Table.from_batches([given])
    if isinstance(given, Mapping):
        return _from_columns(given)
    if isinstance(given, pa.RecordBatchReader):
        return None  # streamed
    return pa.table(given) if hasattr(given, "__arrow_c_stream__") else None


def _must_be_table(item: Any) -> pa.Table:
    if isinstance(item, pa.Table | pa.RecordBatch) or hasattr(item, "__arrow_c_stream__"):
        table = as_table(item)
        if table is not None:
            return table
    raise BadInput(f"the prepare function gave {_a(item)} among its rows", _ROWS_FIX)


def _from_columns(given: Mapping[str, Any]) -> pa.Table:
    lengths = {}
    arrays = {}
    for name, values in given.items():
        try:
            arrays[str(name)] = array = _column_array(str(name), values)
        except (Unsupported, pa.ArrowException, TypeError, ValueError) as error:
            raise BadInput(
                f'column "{name}" is {_a(values)}, which cannot be kept: {error}',
                _ROWS_FIX,
                column=str(name),
            ) from None
        lengths[str(name)] = len(array)
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise BadInput(f"the columns are not equally long: {told}", "Give equally long columns.")
    return pa.table(arrays)


def _column_array(name: str, values: Any) -> Any:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, list | tuple):
        if any(isinstance(value, Reference) for value in values):
            return references_array(list(values))
        if not any(map(_is_array, values)):
            return pa.array(values)
        if len({np.shape(value) for value in values if value is not None}) > 1:
            return _uneven(name, values)
    array = np.asarray(values)
    if array.dtype.kind in "OU":
        return pa.array(array.tolist())
    if array.dtype.kind in "mM":
        return pa.array(array)
    if array.ndim == 0:
        raise Unsupported("one value, not one per row")
    if len(array):
        column_of_value(name, array)
    return tensor_array(array) if array.ndim > 1 else pa.array(array)


def _uneven(name: str, values: Iterable[Any]) -> pa.Array:
    """Arrays of one dimension and several lengths, in a column of lists. Raises Unsupported."""
    column: Column | None = None
    for value in values:
        found = column_of_value(name, value)
        if column is None or found is None:
            column = column or found
        elif (column := common(column, found)) is None:
            raise Unsupported("arrays of uneven shape or dtype")
    if column is None or column.kind != "list":
        raise Unsupported("arrays of uneven shape")
    return list_array(list(values), column)


def _is_array(value: Any) -> bool:
    return isinstance(value, list | tuple) or hasattr(value, "__array__")


def _columns_of(table: pa.Table) -> dict[str, Column]:
    found: dict[str, Column] = {}
    refused = []
    for field in table.schema:
        try:
            found[field.name] = column_of_field(field)
        except Unsupported as error:
            refused.append(f'"{field.name}" is {error}')
            continue
        if found[field.name].kind == "tensor" and table[field.name].null_count:
            refused.append(f'"{field.name}" is a tensor with missing values')
        if found[field.name].kind == "list" and _gaps(table[field.name]):
            refused.append(f'"{field.name}" has missing values inside of lists')
    if len(set(table.column_names)) < table.num_columns:
        refused.append("two columns have one name")
    if refused:
        raise BadInput(
            f"columns that cannot be kept: {'; '.join(refused)}",
            "Cast them in the prepare function to numbers, tensors of fixed shape, text or times.",
            columns=refused,
        )
    return found


def _gaps(lists: pa.ChunkedArray) -> bool:
    """Whether an element of a list is missing; a list may be."""
    return any(chunk.flatten().null_count for chunk in lists.chunks)


def _columns_of_row(
    known: dict[str, Column | None],
    row: Mapping[str, Any],
    number: int,
    differences: Differences,
) -> tuple[dict[str, Column | None], int]:
    size = 0
    found: dict[str, Column | None] = {}
    for name, value in row.items():
        if not isinstance(name, str):
            raise BadInput(f"row {number} has a column named {name!r}", "Name columns by text.")
        size += getattr(value, "nbytes", 0) or (
            len(value) if isinstance(value, str | bytes | list | tuple) else 8
        )
        try:
            found[name] = column_of_value(name, value)
        except Unsupported as error:
            differences.add(f'"{name}" is {error}, which no column can have', number)
            found[name] = known.get(name)
    return found, size


def _missing(name: str) -> str:
    return f'"{name}" is missing, which a tensor cannot be'


class Differences:
    """found   difference -> [first row, how many]
    uneven  columns that lists would keep
    """

    def __init__(self) -> None:
        self.found: dict[str, list[int]] = {}
        self.uneven: set[str] = set()

    def add(self, text: str, row: int) -> None:
        self.found.setdefault(text, [row, 0])[1] += 1

    def compare(
        self,
        known: Mapping[str, Column | None],
        found: Mapping[str, Column | None],
        row: int,
        gaps: bool = True,
    ) -> None:
        """Note how the columns of a row differ from the known ones; a missing value never does,
        except (with `gaps`) in a tensor."""
        if known == found:
            return
        for name, column in known.items():
            if name not in found:
                self.add(f'"{name}" is not there', row)
            elif column is None or (there := found[name]) == column:
                continue
            elif there is None:
                if gaps and column.kind == "tensor":
                    self.add(_missing(name), row)
            elif (both := common(column, there)) is None or both.storage != column.storage:
                self.add(f'"{name}" is {there}, not {column}', row)
                if both is not None:
                    self.uneven.add(name)
        for name in found:
            if name not in known:
                self.add(f'"{name}" is there, but not in the first row', row)

    def raise_if_any(self) -> None:
        if not self.found:
            return
        told = [
            f"{text} (row {row}{f' and {count - 1} more' if count > 1 else ''})"
            for text, (row, count) in self.found.items()
        ]
        raise BadInput(
            "the rows do not have one schema:\n  " + "\n  ".join(told),
            "Make every row like the first: the same columns, dtypes and shapes."
            + "".join(
                f' Where lengths vary, say so: types={{"{name}": Tensor((None,))}}.'
                for name in sorted(self.uneven)[:1]
            ),
            differences=told,
        )


def _a(value: Any) -> str:
    return f"a {type(value).__name__}"
