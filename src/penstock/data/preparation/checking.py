"""Expectations of a new version: every row is looked at before anything is published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.data.columns import Column
from penstock.data.expectations import Checker, Expectations, outcome, refuse
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
    bad: list[Bad] = []
    with Checker(expectations, made.columns, key) as checker:
        for split, first, numbers, table in _tables(stores, laid, made):
            found = np.flatnonzero(checker.add(table, split))
            if len(found):
                aside.setdefault(split, []).extend((found + first).tolist())
                why = [", ".join(checker.why[row]) for row in found.tolist()]
                bad += _bad(laid, numbers, table, made.columns, found, split, why)
        violations = checker.finish()
    refuse(violations, f"the new version of dataset {name}")
    lines = [f"{each.severity}: {each}" for each in violations]
    if aside:
        made = made.without(laid, {split: np.array(rows) for split, rows in aside.items()})
    return Checked(made, outcome(expectations, violations), lines, bad)


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


def _bad(
    laid: Laid,
    numbers: Rows,
    table: pa.Table,
    columns: Sequence[Column],
    found: Rows,
    split: str,
    why: list[str],
) -> list[Bad]:
    rows = rows_of(table.take(pa.array(found)), list(columns))
    units = laid.whose(numbers[found])
    return [
        Bad(f"split {split}, from {laid.places[unit]}", "expectations",
            f"it is not as expected: {told}", raw=raw_of(row))
        for unit, row, told in zip(units, rows, why, strict=True)
    ]  # fmt: skip
