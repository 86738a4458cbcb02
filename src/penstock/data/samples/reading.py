"""What samples ask of the source below them: some of its columns, its columns' kinds, its lengths.

A source may offer more than the protocol: `only(names)` (the same rows, these columns) and
`lengths(name)` (of a column of lists, without reading their values). Without them all columns are
gathered and the others left out: right, but slower.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.base.errors import BadInput, NotFound
from penstock.base.nearest import did_you_mean
from penstock.data.columns import Column, Values
from penstock.data.order import Rows

if TYPE_CHECKING:
    from penstock.data.source import Source

BLOCK = 1 << 16  # rows gathered at once while an index is made


def column_of(source: Source, name: str, what: str) -> Column:
    """The source's column of that name. Raises NotFound, which offers the nearest."""
    for each in source.columns:
        if each.name == name:
            return each
    raise NotFound(
        f'{what} "{name}" is not a column of the data',
        did_you_mean(name, [each.name for each in source.columns]),
        column=name,
    )


def only(source: Source, names: Sequence[str]) -> Source:
    """The same rows, with these columns alone."""
    if [each.name for each in source.columns] == list(names):
        return source
    offered = getattr(source, "only", None)
    found: Source = _Only(source, names) if offered is None else offered(names)
    return found


class _Only:
    def __init__(self, source: Source, names: Sequence[str]) -> None:
        self._source = source
        self.columns = [each for each in source.columns if each.name in names]
        self.identity = source.identity

    def __len__(self) -> int:
        return len(self._source)

    def gather(self, rows: Rows) -> dict[str, Values]:
        found = self._source.gather(rows)
        return {each.name: found[each.name] for each in self.columns}

    def ahead(self, rows: Rows) -> None:
        self._source.ahead(rows)

    def done(self, rows: Rows) -> None:
        self._source.done(rows)

    def close(self) -> None:
        self._source.close()


def blocks(source: Source, names: Sequence[str]) -> Iterator[tuple[int, dict[str, Values]]]:
    """All rows of these columns, some at a time: (first row, column -> values)."""
    narrow = only(source, names)
    for start in range(0, len(source), BLOCK):
        yield (
            start,
            narrow.gather(np.arange(start, min(start + BLOCK, len(source)), dtype=np.int64)),
        )


def lengths_of(source: Source, name: str) -> Rows:
    """How many values each row's list has: int64 [n]; 0 for a missing one. BadInput."""
    column = column_of(source, name, "the column of lists")
    if column.kind == "list" and (offered := getattr(source, "lengths", None)) is not None:
        known: Rows = offered(name)
        return known
    if column.kind not in ("list", "text", "bytes"):
        raise BadInput(
            f'column "{name}" is {column}, which has one length for all rows',
            "Name a column of lists (of variable length).",
            column=name,
        )
    found = [lengths(each[name]) for _, each in blocks(source, [name])]
    return np.concatenate([np.empty(0, np.int64), *found])


def lengths(values: Values) -> Rows:
    """How many values each of some lists has: int64 [len(values)]; 0 for a missing one."""
    return np.fromiter((0 if v is None else len(v) for v in values), np.int64, len(values))


def value_of(values: Values, number: int) -> Any:
    """One value, as plain Python, for messages."""
    value = values[number]
    return value.item() if hasattr(value, "item") else value
