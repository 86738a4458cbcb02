"""Compare data with what is expected of it: rows as they stream by, or a manifest at a glance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.blobs import Blobs
from penstock.data.columns import Column, column_of_field, one_chunk, values_of
from penstock.data.expectations.inference import facts_of
from penstock.data.expectations.leakage import Leaks
from penstock.data.expectations.model import (
    DATASET,
    LEAKAGE,
    SHOWN,
    Expectation,
    Expectations,
    Place,
    Violation,
    shown,
)
from penstock.data.expectations.rules import RULES, Facts, Rows, refuse_misfits
from penstock.data.manifest import Manifest
from penstock.data.reading import read_tables
from penstock.data.row_hashes import RECORD, Sorter, hash_rows, records
from penstock.data.statistics import Gatherer

_COLUMNS = "columns"
_LOOKED_AT = 9  # elements of a tensor that a sample is made of


@dataclass
class _Broken:
    """Rows that break one rule, so far."""

    count: int = 0
    rows: list[Place] = field(default_factory=list)
    samples: list[Any] = field(default_factory=list)


class Checker:
    """Checks tables as they come: `add` each, then `finish`; `close` at the end in any case (it
    is a context manager).

    columns  of the tables
    key      the column that names rows in violations; None where none does
    Holds some numbers per column, and 28 bytes per row for each rule that looks for equal rows
    (`unique` and leakage), which go to files when they are many (see `Sorter`).

    Raises BadInput for a rule that cannot be asked of its column.
    """

    def __init__(
        self, expectations: Expectations, columns: Sequence[Column], key: str | None = None
    ) -> None:
        self._columns = {each.name: each for each in columns}
        self._expectations = expectations
        self._key = key
        self._rows: dict[str, int] = {}
        rules = [each for each in expectations.rules if each.section == _COLUMNS]
        self._absent = [each for each in rules if each.column not in self._columns]
        self._rules = [each for each in rules if each.column in self._columns and self._fits(each)]
        self._by_row = [each for each in self._rules if RULES[each.rule].sets_aside(each.values)]
        self._broken: dict[int, _Broken] = {}
        whole = [each for each in self._rules if each not in self._by_row]
        self._gatherers = {
            name: Gatherer(self._columns[name]) for name in {each.column for each in whole}
        }
        self._unique = {each.column: Sorter(RECORD) for each in whole if each.rule == "unique"}
        self._leaks = Leaks(expectations.of(LEAKAGE), list(columns), key)

    def __enter__(self) -> Checker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what lies in files; safe to call twice."""
        for sorter in self._unique.values():
            sorter.close()
        self._leaks.close()

    def _fits(self, each: Expectation) -> bool:
        """Whether a rule can be asked; not where the column is another than expected, which the
        rule `type` tells."""
        column = self._columns[each.column]
        if RULES[each.rule].fits(column):
            refuse_misfits(each.rule, each.values, column)
            return True
        for other in self._expectations.of(_COLUMNS, each.column):
            facts = Facts(column, Gatherer(column).result(), None)
            if other.rule == "type" and RULES["type"].told(other.values, facts):
                return False
        raise BadInput(
            f"{each.name} cannot be asked of a column of {column}",
            "Delete the rule, or correct the name of its column.",
            expectation=each.name,
        )

    def add(self, table: pa.Table, split: str = "") -> Rows:
        """Take the next rows of a split. Returns which of them to set aside: bool [rows].

        Rows that are set aside do not count for rules about the whole. `why` tells, until the
        next `add`, for each of them the names of the expectations that it does not meet.
        """
        self.why: dict[int, list[str]] = {}
        first = self._rows.get(split, 0)
        self._rows[split] = first + table.num_rows
        aside = np.zeros(table.num_rows, bool)
        for number, each in enumerate(self._by_row):
            found = self._bad(table, each)
            if found.any():
                self._note(number, table, each, np.flatnonzero(found), split, first)
                if each.severity == "quarantine":
                    aside |= found
                    for row in np.flatnonzero(found).tolist():
                        self.why.setdefault(row, []).append(each.name)
        numbers = np.flatnonzero(~aside) if aside.any() else None
        kept = table if numbers is None else table.take(pa.array(numbers))
        for name, gatherer in self._gatherers.items():
            gatherer.add(kept[name])
        for name, sorter in self._unique.items():
            sorter.add(self._records(kept, name, split, first, numbers))
        self._leaks.add(kept, split, first, numbers)
        return aside

    def _bad(self, table: pa.Table, each: Expectation) -> Rows:
        check = RULES[each.rule].bad
        if check is None:
            raise AssertionError(f"{each.rule} does not look at rows")
        return check(each.values, one_chunk(table[each.column]), self._columns[each.column])

    def _records(
        self, kept: pa.Table, name: str, split: str, first: int, numbers: Any
    ) -> np.ndarray[Any, Any]:
        found = records(hash_rows(kept, [self._columns[name]]), self._leaks.number(split), first)
        if numbers is not None:
            found["row"] = first + numbers
        there: Rows = kept[name].is_valid().to_numpy()
        return found[there]

    def _note(
        self, number: int, table: pa.Table, each: Expectation, bad: Any, split: str, first: int
    ) -> None:
        broken = self._broken.setdefault(number, _Broken())
        broken.count += len(bad)
        column = self._columns[each.column]
        for row in bad[: SHOWN - len(broken.rows)].tolist():
            broken.rows.append(Place(split, first + row, _key_of(table, self._key, row)))
            broken.samples.append(_sample(table, column, row))

    def finish(self) -> list[Violation]:
        """Everything that does not hold, in the order of the file."""
        found = [
            *self._of_dataset(),
            *_absent(self._absent),
            *self._of_columns(),
            *self._leaks.finish(),
        ]
        order = {id(each): place for place, each in enumerate(self._expectations.rules)}
        return sorted(found, key=lambda each: order[id(each.expectation)])

    def _of_dataset(self) -> list[Violation]:
        names = [each.column for each in self._expectations.rules if each.section == _COLUMNS]
        return _dataset(self._expectations, sum(self._rows.values()), list(self._columns), names)

    def _of_columns(self) -> list[Violation]:
        found = []
        total = sum(self._rows.values())
        for number, each in enumerate(self._by_row):
            if (broken := self._broken.get(number)) is not None:
                what = _WHAT[each.rule].format(**{"least": "-∞", "most": "∞"} | each.values)
                what += f" in {broken.count} of {total} rows"
                rows, samples = tuple(broken.rows), tuple(broken.samples)
                found.append(Violation(each, what, broken.count, rows, samples))
        for each in self._rules:
            if each in self._by_row:
                continue
            if each.rule == "unique":
                found += self._repeated(each)
                continue
            gatherer = self._gatherers[each.column]
            facts = Facts(self._columns[each.column], gatherer.result(), gatherer)
            if told := RULES[each.rule].told(each.values, facts):
                found.append(Violation(each, told))
        return found

    def _repeated(self, each: Expectation) -> list[Violation]:
        count, rows = self._leaks.repeated(self._unique[each.column])
        if not count:
            return []
        samples = tuple(f"as {first}" for _, first in rows)
        what = f"values that an earlier row has in {count} of {sum(self._rows.values())} rows"
        return [Violation(each, what, count, tuple(row for row, _ in rows), samples)]


_WHAT = {
    "missing": "no value",
    "finite": "NaN or infinity",
    "range": "values outside of {least} to {most}",
    "length": "lengths outside of {least} to {most}",
    "categories": "values that are not expected",
    "pattern": "text without {is}",
}


def _dataset(
    expectations: Expectations, rows: int, columns: list[str], named: list[str]
) -> list[Violation]:
    found = []
    for each in expectations.of(DATASET):
        if each.rule == "other_columns":
            if others := [name for name in columns if name not in named]:
                found.append(Violation(each, f"there are others: {', '.join(others)}"))
            continue
        least, most = each.values.get("least"), each.values.get("most")
        if (least is not None and rows < least) or (most is not None and rows > most):
            wanted = f"{least if least is not None else 0} to {'∞' if most is None else most}"
            found.append(Violation(each, f"there are {rows}, expected {wanted}"))
    return found


def _absent(rules: list[Expectation]) -> list[Violation]:
    """One violation for a column that is not there: of its rule `type`, or of all it has."""
    typed = {each.column for each in rules if each.rule == "type"}
    return [
        Violation(each, "the column is not there")
        for each in rules
        if each.rule == "type" or each.column not in typed
    ]


def _key_of(table: pa.Table, key: str | None, row: int) -> str | None:
    if key is None or key not in table.column_names:
        return None
    value = table[key][row].as_py()
    return value.hex() if isinstance(value, bytes) else str(value)


def _sample(table: pa.Table, column: Column, row: int) -> Any:
    piece = table[column.name].slice(row, 1)
    if column.kind == "tensor":
        return shown(one_chunk(piece).storage.flatten()[:_LOOKED_AT].to_pylist())
    value = values_of(one_chunk(piece), column)[0]
    return shown(value.tolist() if column.kind == "list" and value is not None else value)


def check_tables(
    tables: Iterable[tuple[str, pa.Table]],
    expectations: Expectations,
    columns: Sequence[Column] | None = None,
    key: str | None = None,
) -> list[Violation]:
    """Check rows as they stream by; every table comes with the split of its rows.

    columns  of the tables; by default what their schema tells
    key      the column that names rows
    Raises BadInput for a rule that cannot be asked of its column.
    """
    checker: Checker | None = None
    try:
        for split, table in tables:
            if checker is None:
                known = columns or [column_of_field(each) for each in table.schema]
                checker = Checker(expectations, known, key)
            checker.add(table, split)
        if checker is None:
            checker = Checker(expectations, columns or [], key)
        return checker.finish()
    finally:
        if checker is not None:
            checker.close()


def check(
    blobs: Blobs,
    manifest: Manifest,
    expectations: Expectations,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Violation]:
    """Read a whole version, shard by shard, and check every row.

    on_progress  is told rows: (done, in all)
    Raises BadInput for a rule that cannot be asked, and what reading raises.
    """

    def tables() -> Iterator[tuple[str, pa.Table]]:
        done = 0
        for split in manifest.splits:
            for table in read_tables(blobs, manifest, split):
                yield split, table
                done += table.num_rows
                if on_progress is not None:
                    on_progress(done, manifest.rows)

    return check_tables(tables(), expectations, manifest.columns, manifest.key)


def check_manifest(manifest: Manifest, expectations: Expectations) -> list[Violation]:
    """Check what schema and statistics of a version tell, without reading a row.

    What only rows can tell (patterns, leakage beyond the keys, equal values among many) is not
    looked at: `check` does.
    """
    facts = facts_of(manifest)
    rules = [each for each in expectations.rules if each.section == _COLUMNS]
    found = _dataset(
        expectations, manifest.rows, list(manifest.schema), [each.column for each in rules]
    )
    found += _absent([each for each in rules if each.column not in manifest.schema])
    for each in rules:
        column = manifest.schema.get(each.column)
        if column is None:
            continue
        known = facts.get(each.column)
        if known is None:  # the key has no statistics
            known = Facts(column, Gatherer(column).result(), None)
        if RULES[each.rule].fits(column) and (told := RULES[each.rule].told(each.values, known)):
            found.append(Violation(each, told))
    for each in expectations.of(LEAKAGE):
        if each.rule == "key" and manifest.checks.get("no_key_in_two_splits") is False:
            found.append(Violation(each, "a key is in two splits"))
    return found
