"""Which columns a dataset has where its rows disagree: those that most rows have.

Every row has one vote for the set of its columns; those of the winning set have one for the type of
each value that is there. What comes first wins a tie. So the outcome depends on the rows and their
order alone, not on how they were cut into units, and a few bad rows change nothing, wherever they
stand. Arrays of one dimension and lists of one dtype are one type: of several lengths, they are
lists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from penstock.data.columns import Column
from penstock.data.preparation.schema import joined
from penstock.data.preparation.tables import column_from, told_column


@dataclass
class Ballot:
    """The votes of rows that have the same columns.

    values  column -> how many have a value there
    """

    columns: list[Column]
    rows: int
    values: dict[str, int]

    @classmethod
    def of(cls, table: pa.Table) -> Ballot:
        """Of a table that holds nothing but the columns of the data."""
        rows = table.num_rows
        found = [told_column(each) for each in table.schema]
        return cls(found, rows, {c.name: rows - table[c.name].null_count for c in found})

    def told(self) -> dict[str, Any]:
        """As JSON; `from_told` is the way back."""
        return {**asdict(self), "columns": [asdict(each) for each in self.columns]}

    @classmethod
    def from_told(cls, told: Mapping[str, Any]) -> Ballot:
        return cls([column_from(c) for c in told["columns"]], told["rows"], dict(told["values"]))


def counted(ballots: Iterable[Ballot]) -> list[Ballot]:
    """The same votes in fewer ballots."""
    found: list[Ballot] = []
    for each in ballots:
        same = next((other for other in found if other.columns == each.columns), None)
        if same is None:
            found.append(replace(each, values=dict(each.values)))
            continue
        same.rows += each.rows
        for name, count in each.values.items():
            same.values[name] += count
    return found


def elected(ballots: Sequence[Ballot]) -> list[Column]:
    """The columns that won, gaps where no row of the winning set has a value. One ballot at
    least."""
    sets: Counter[frozenset[str]] = Counter()
    for each in ballots:
        sets[frozenset(each.values)] += each.rows
    names = max(sets, key=sets.__getitem__)
    voters = [each for each in ballots if each.values.keys() == names]
    return [_type(number, voters) for number in range(len(names))]


def _type(number: int, voters: Sequence[Ballot]) -> Column:
    first = voters[0].columns[number]
    found: dict[Any, tuple[int, Column]] = {}
    empty: Column | None = None  # some rows hold empty lists
    for each in voters:
        column = next(c for c in each.columns if c.name == first.name)
        if not (values := each.values[first.name]):
            continue
        if not column.known:
            empty = column
            continue
        count, before = found.get(kind_of(column), (0, column))
        found[kind_of(column)] = count + values, joined(before, column) or before
    if not found:
        return empty or first
    column = max(found.values(), key=lambda each: each[0])[1]
    return column if empty is None else joined(column, empty) or column


def kind_of(column: Column) -> Any:
    """Equal for columns whose values one column can hold."""
    if column.kind == "list" or (column.kind == "tensor" and len(column.shape) == 1):
        return "list", column.dtype
    return column.storage
