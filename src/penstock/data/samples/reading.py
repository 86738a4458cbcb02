"""What samples ask of the source below: some of its columns, their kinds, the lengths of lists.

Of a source only `identity`, `len`, `gather` and `columns` are needed. Where it offers more it is
faster: `pick(rows, names)` gathers some columns, `scan(names)` gives all rows of some columns as
Arrow, for an index. Without them all columns are gathered and the others left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.base.errors import BadInput, NotFound
from penstock.base.nearest import did_you_mean
from penstock.data.columns import Column, Values, arrow_type
from penstock.data.order import Rows

if TYPE_CHECKING:
    from penstock.data.source import Source

BLOCK = 1 << 16  # rows gathered at once while an index is made, where there is no scan


def columns_of(source: Source) -> list[Column]:
    """What `gather` gives. Raises BadInput for a source that does not say."""
    found = getattr(source, "columns", None)
    if not found:
        raise BadInput(
            f"{type(source).__name__} does not say what columns it has, so no samples can be made",
            "Make a dataset of it (ps.prepare), or give the source a list `columns`.",
        )
    return list(found)


def column_of(source: Source, name: str, what: str) -> Column:
    """The source's column of that name. Raises NotFound, which offers the nearest."""
    known = {each.name: each for each in columns_of(source)}
    if name not in known:
        raise NotFound(
            f'{what} "{name}" is not a column of the data', did_you_mean(name, known), column=name
        )
    return known[name]


class Picked:
    """The rows of a source with some of its columns alone; the source stays its owner's."""

    def __init__(self, source: Source, names: Sequence[str]) -> None:
        self.columns = [each for each in columns_of(source) if each.name in names]
        self._source = source
        self._names = [each.name for each in self.columns]
        self._pick: Callable[[Rows, list[str]], dict[str, Values]] | None
        self._pick = getattr(source, "pick", None)

    def gather(self, rows: Rows) -> dict[str, Values]:
        """These rows in this order: column -> new array [len(rows), *shape], or a list."""
        if self._pick is not None:
            return self._pick(rows, self._names)
        found = self._source.gather(rows)
        return {name: found[name] for name in self._names}

    @property
    def complete(self) -> bool:
        return complete(self._source)

    def ahead(self, rows: Rows) -> None:
        hint(self._source, "ahead", rows)

    def done(self, rows: Rows) -> None:
        hint(self._source, "done", rows)


def hint(source: Source, which: str, rows: Rows) -> None:
    """Pass a hint on to a source that takes it."""
    if (take := getattr(source, which, None)) is not None:
        take(rows)


def bounded(source: Source) -> bool:
    """Whether it matters to a source what is done: not all of it can stay open."""
    return bool(getattr(source, "bounded", hasattr(source, "done")))


def complete(source: Source) -> bool:
    """Whether all of a source is open: nothing is left to bring ahead."""
    return bool(getattr(source, "complete", not hasattr(source, "ahead")))


def close(source: Source) -> None:
    """Close a source that can be closed."""
    if (end := getattr(source, "close", None)) is not None:
        end()


def blocks(source: Source, columns: Sequence[Column]) -> Iterator[tuple[int, dict[str, pa.Array]]]:
    """All rows of these columns, some at a time: (first row, column -> Arrow)."""
    names = [each.name for each in columns]
    start = 0
    if (scan := getattr(source, "scan", None)) is not None:
        for batch in scan(names):
            if batch.num_rows:
                yield start, {name: batch.column(name) for name in names}
            start += batch.num_rows
        return
    picked = Picked(source, names)
    for start in range(0, len(source), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(source)), dtype=np.int64)
        found = picked.gather(rows)
        yield start, {each.name: _arrow(found[each.name], each) for each in columns}


def _arrow(values: Values, column: Column) -> pa.Array:
    if isinstance(values, np.ndarray) and values.dtype.kind == "f":
        return pa.array(values)  # NaN stays NaN
    return pa.array(values, arrow_type(column))


def lengths_of(source: Source, column: Column) -> Rows:
    """How long each row's list or text is: int64 [n]; 0 for a missing one. Raises BadInput."""
    if column.kind not in ("list", "text", "bytes"):
        raise BadInput(
            f'column "{column.name}" is {column}, which has no length of its own in each row',
            "Name a column of lists (of variable length), or of text.",
            column=column.name,
        )
    found = [_lengths(arrays[column.name]) for _, arrays in blocks(source, [column])]
    return np.concatenate([np.empty(0, np.int64), *found])


def _lengths(array: pa.Array) -> Rows:
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        counted = pc.utf8_length(array)
    elif pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        counted = pc.binary_length(array)
    else:
        counted = pc.list_value_length(array)
    found: Rows = counted.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def lengths(values: Values) -> Rows:
    """How many values each of some gathered lists has: int64 [len(values)]; 0 if missing."""
    return np.fromiter((0 if v is None else len(v) for v in values), np.int64, len(values))


def plain(value: Any) -> Any:
    """A value for messages: Python's own, where Arrow or NumPy hold it."""
    for method in ("as_py", "item"):
        if hasattr(value, method):
            return getattr(value, method)()
    return value
