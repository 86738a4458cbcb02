"""Expectations of a new version: every row is looked at before anything is published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.data.columns import Column
from penstock.data.expectations import Checker, Expectations, Violation, outcome, refuse
from penstock.data.keys import rows_of
from penstock.data.preparation import shelf
from penstock.data.preparation.assembly import Laid
from penstock.data.preparation.bad import Bad, raw_of
from penstock.data.preparation.ordering import Ordered, Rows, as_they_lie

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores

_ROWS = 4096


@dataclass
class Checked:
    """note: for the manifest; lines: to tell; aside: rows that were set aside, in order"""

    ordered: Ordered
    note: dict[str, Any]
    lines: list[str]
    aside: list[Bad]


def checked(
    stores: Stores, name: str, expectations: Expectations, laid: Laid, made: Ordered, key: str
) -> Checked:
    """Look at all rows, in this process. Raises Refused where an expectation says so, BadInput
    where one cannot be asked."""
    aside: dict[str, list[int]] = {}
    set_aside: list[_Aside] = []
    with Checker(expectations, made.columns, key) as checker:
        for split, first, numbers, table in _tables(stores, laid, made):
            found = np.flatnonzero(checker.add(table, split))
            if len(found):
                aside.setdefault(split, []).extend((found + first).tolist())
                why = [", ".join(checker.why[row]) for row in found.tolist()]
                set_aside += _bad(numbers, table, made.columns, found, why)
        violations = checker.finish()
    if any(each.severity == "refuse" for each in violations):
        refuse(_placed(stores, laid, made, violations), f"the new version of dataset {name}")
    lines = [f"{each.severity}: {each}" for each in violations]
    if aside:
        made = made.without(laid, {split: np.array(rows) for split, rows in aside.items()})
    return Checked(made, outcome(expectations, violations), lines, _told(stores, laid, set_aside))


def _tables(stores: Stores, laid: Laid, made: Ordered) -> Iterator[tuple[str, int, Rows, pa.Table]]:
    right = made.right
    names = {} if right is None else right["names"]
    ours = [each for each in made.columns if each.name not in names]
    theirs = [each for each in made.columns if each.name in names]
    for split, numbers in (made.numbers or as_they_lie(laid)).items():
        for start in range(0, len(numbers), _ROWS):
            chosen = numbers[start : start + _ROWS]
            table = shelf.taken(stores.blobs, laid.units, chosen, ours)
            if right is not None and made.joined is not None:
                match = made.joined[split][start : start + _ROWS]
                own = [names[each.name] for each in theirs]
                added = shelf.taken(stores.blobs, right["units"], match, theirs, own)
                for each in theirs:
                    table = table.append_column(added.schema.field(each.name), added[each.name])
            yield split, start, chosen, table


@dataclass(frozen=True, slots=True)
class _Aside:
    """A row that was set aside. number: in all units"""

    number: int
    why: str
    raw: bytes


def _bad(
    numbers: Rows,
    table: pa.Table,
    columns: Sequence[Column],
    found: Rows,
    why: list[str],
) -> list[_Aside]:
    rows = rows_of(table.take(pa.array(found)), list(columns))
    return [
        _Aside(number, told, raw_of(row))
        for number, row, told in zip(numbers[found].tolist(), rows, why, strict=True)
    ]


def _told(stores: Stores, laid: Laid, found: Sequence[_Aside]) -> list[Bad]:
    """With their places; each unit that has such rows is read once more."""
    places = laid.where(stores, np.array([each.number for each in found], np.int64))
    return [
        Bad(place, "expectations", f"it is not as expected: {each.why}",
            raw=each.raw)
        for each, place in zip(found, places, strict=True)
    ]  # fmt: skip


def _placed(
    stores: Stores, laid: Laid, made: Ordered, violations: Sequence[Violation]
) -> list[Violation]:
    """The same, each row with its place in the raw data."""
    numbers = made.numbers or as_they_lie(laid)
    found = []
    for each in violations:
        chosen = np.array([numbers[row.split][row.row] for row in each.rows], np.int64)
        where = laid.where(stores, chosen)
        rows = tuple(replace(row, where=w) for row, w in zip(each.rows, where, strict=True))
        found.append(replace(each, rows=rows))
    return found
