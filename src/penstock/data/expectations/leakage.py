"""What is in two splits though it must not be: keys, episodes, equal rows.

Every row leaves a hash (16 bytes) with its place; equal ones come side by side when they are
sorted, which needs no more memory than the sorter's budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.data.columns import Column
from penstock.data.expectations.model import SHOWN, Expectation, Place, Violation
from penstock.data.row_hashes import Hashes, Sorter, hash_keys, hash_rows, records, runs


class Leaks:
    """Looks for leaks between splits: `add` every table, then `finish`, then `close`.

    rules    of the section "leakage"
    key      the column that names rows; without one the rule `key` is not asked, and without
             another column than it the rule `content` is not
    Raises BadInput when `episode` names a column that is not there.
    """

    def __init__(
        self, rules: Sequence[Expectation], columns: Sequence[Column], key: str | None
    ) -> None:
        self._columns = list(columns)
        self._key = key if key in [each.name for each in columns] else None
        self._splits: dict[str, int] = {}
        self._sorters = [(each, Sorter()) for each in rules if self._asked(each)]

    def _asked(self, rule: Expectation) -> bool:
        if rule.rule == "key":
            return self._key is not None
        names = [each.name for each in self._columns]
        if rule.rule == "content":
            return any(name != self._key for name in names)
        if rule.rule == "episode" and (column := rule.values["column"]) not in names:
            raise BadInput(
                f'{rule.name} looks at a column "{column}", which is not in the data',
                did_you_mean(column, names),
                expectation=rule.name,
            )
        return True

    def close(self) -> None:
        for _, sorter in self._sorters:
            sorter.close()

    def number(self, split: str) -> int:
        """Splits are counted as they come."""
        return self._splits.setdefault(split, len(self._splits))

    def add(self, table: pa.Table, split: str, first: int, numbers: Any = None) -> None:
        """Take rows of a split.

        first    number of the first row in the split
        numbers  where rows were left out: of each row that is here, counted from `first`
        """
        for rule, sorter in self._sorters:
            found = records(self._hashes(rule, table), self.number(split), first)
            if numbers is not None:
                found["row"] = first + numbers
            if rule.rule == "episode":
                found = found[table[rule.values["column"]].is_valid().to_numpy()]
            sorter.add(found)

    def _hashes(self, rule: Expectation, table: pa.Table) -> Hashes:
        if rule.rule == "content":
            return hash_rows(table, [each for each in self._columns if each.name != self._key])
        if rule.rule == "key":
            return hash_keys(table[self._key])
        (column,) = [each for each in self._columns if each.name == rule.values["column"]]
        return hash_rows(table, [column])

    def finish(self) -> list[Violation]:
        """One violation for each rule that is broken."""
        found = []
        for rule, sorter in self._sorters:
            count, rows = self._between(sorter)
            if count:
                what = _WHAT[rule.rule].format(count=count, **rule.values)
                samples = tuple(f"as {other}" for _, other in rows)
                found.append(Violation(rule, what, count, tuple(row for row, _ in rows), samples))
        return found

    def _between(self, sorter: Sorter) -> tuple[int, list[tuple[Place, Place]]]:
        """How many hashes are in two splits or more, and the first of them with two places."""
        count, shown = 0, list[tuple[Place, Place]]()
        for part in sorter.sorted():
            ends = runs(part)
            if len(ends) < 2:
                continue
            low = np.minimum.reduceat(part["group"], ends[:-1])
            high = np.maximum.reduceat(part["group"], ends[:-1])
            leaks = np.flatnonzero(low != high)
            count += len(leaks)
            for run in leaks[: SHOWN - len(shown)].tolist():
                rows = part[ends[run] : ends[run + 1]]
                other = rows[rows["group"] != rows["group"][0]][0]
                shown.append((self._place(other), self._place(rows[0])))
        return count, shown

    def repeated(self, sorter: Sorter) -> tuple[int, list[tuple[Place, Place]]]:
        """How many rows repeat an earlier one, and the first of them with the one they repeat."""
        count, shown = 0, list[tuple[Place, Place]]()
        for part in sorter.sorted():
            ends = runs(part)
            sizes = np.diff(ends)
            count += int((sizes - 1).sum())
            for run in np.flatnonzero(sizes > 1)[: SHOWN - len(shown)].tolist():
                shown.append((self._place(part[ends[run] + 1]), self._place(part[ends[run]])))
        return count, shown

    def _place(self, record: Any) -> Place:
        return Place(list(self._splits)[int(record["group"])], int(record["row"]))


_WHAT = {
    "key": "keys in more than one split: {count}",
    "episode": 'values of "{column}" in more than one split: {count}',
    "content": "rows, equal but for the key, in more than one split: {count}",
}
