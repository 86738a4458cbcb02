"""Which split a row is put into: a pure function of the row, so appending rows moves none.

    splits={"train": 0.8, "test": 0.2}     shares of the hashes of the key
    the same, with by="episode"            shares of the hashes of that column's values
    splits=ByTime("at", {"train": "2024-06-01", "test": None})
                                           by boundaries: where each split ends, exclusive
    splits="fold"                          that column says it, by name

Rows of one value of `by` are together. A column whose meaning is "episode" is taken for `by` when
nothing else is said.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.data.columns import Column
from penstock.data.keys import (
    Hashes,
    check_split_name,
    check_splits,
    column_texts,
    split_numbers,
    split_of_hashes,
)

Time = str | int | float | datetime.datetime | datetime.date | None


@dataclass(frozen=True)
class ByTime:
    """column  of times or numbers
    until   split -> where it ends, exclusive; the last one None. In order of time
    """

    column: str
    until: Mapping[str, Time]


@dataclass(frozen=True, slots=True)
class Rule:
    """What was asked, checked. JSON-able by `spec`.

    kind    "key", "group", "time" or "column"
    column  that decides; "" for the key
    shares  of "key" and "group"; else empty
    until   of "time": split -> ISO text, a number, or None
    """

    kind: str
    column: str = ""
    shares: dict[str, float] = field(default_factory=dict)
    until: dict[str, str | int | float | None] = field(default_factory=dict)

    def spec(self) -> dict[str, Any]:
        # Lists, because canonical JSON sorts the keys of objects and splits have an order.
        return {
            "kind": self.kind,
            "column": self.column,
            "shares": [list(each) for each in self.shares.items()],
            "until": [list(each) for each in self.until.items()],
        }

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Rule:
        return cls(spec["kind"], spec["column"], dict(spec["shares"]), dict(spec["until"]))

    @property
    def by_key(self) -> bool:
        """Whether rows of one key are in one split, whatever else they hold."""
        return self.kind == "key"

    @property
    def by_hash(self) -> bool:
        """Whether hashes of keys decide: not where all rows are in one split."""
        return self.kind == "key" and len(self.shares) > 1

    @property
    def names(self) -> list[str]:
        """The splits in their order; [] where only the data tells."""
        return list(self.shares or self.until)


def rule_of(splits: Any, by: str | None) -> Rule:
    """What the arguments `splits` and `by` ask for. Raises BadInput."""
    if by is not None and not isinstance(by, str):
        raise BadInput(f"by={by!r} is no column", "Give the name of a column.")
    if isinstance(splits, ByTime):
        _refuse_by(by)
        return _by_time(splits)
    if isinstance(splits, str):
        _refuse_by(by)
        return Rule("column", splits)
    if splits is not None and not isinstance(splits, Mapping):
        raise BadInput(
            f"splits={splits!r} names no splits",
            'Give shares ({"train": 0.8, "test": 0.2}), a column that says it, or ByTime(…).',
        )
    shares = check_splits(splits)
    return Rule("key", "", shares) if by is None else Rule("group", by, shares)


def _refuse_by(by: str | None) -> None:
    if by is not None:
        raise BadInput(
            f'by="{by}" goes with shares, not with splits that a column or time decides',
            'Leave it out, or give shares: splits={"train": 0.8, "test": 0.2}.',
        )


def _by_time(asked: ByTime) -> Rule:
    until: dict[str, str | int | float | None] = {}
    for name, end in asked.until.items():
        check_split_name(name)
        until[name] = end.isoformat() if isinstance(end, datetime.date) else end
    ends = list(until.values())
    good = len(ends) > 1 and ends[-1] is None and None not in ends[:-1]
    if not good:
        raise BadInput(
            f"the boundaries {until} do not cut time into splits",
            'Each split but the last ends at a time, the last at None: ByTime("at", '
            '{"train": "2024-06-01", "test": None}).',
        )
    return Rule("time", asked.column, {}, until)


def for_columns(rule: Rule, columns: Sequence[Column]) -> Rule:
    """The rule for data of these columns: an episode stays together. Raises BadInput."""
    names = [each.name for each in columns]
    episodes = [each.name for each in columns if each.meaning == "episode"]
    if rule.kind == "key" and len(episodes) == 1:
        return Rule("group", episodes[0], rule.shares)
    if rule.kind != "key" and rule.column not in names:
        raise BadInput(
            f'the splits follow from a column "{rule.column}", which is not in the data',
            did_you_mean(rule.column, names),
            column=rule.column,
        )
    return rule


def assign(
    rule: Rule, table: pa.Table, hashes: Hashes | None, names: Sequence[str]
) -> npt.NDArray[np.int64]:
    """For each row the number of its split in `names`, which holds the rule's or, where a column
    says it, is extended by what is found: int64 [rows].

    hashes  of the rows' keys; None where the rule does not go by them (`by_hash`)
    """
    if rule.kind == "key":
        if hashes is None:
            return np.zeros(table.num_rows, np.int64)
        return split_of_hashes(hashes, rule.shares)
    if rule.kind == "group":
        return split_numbers(column_texts(table, rule.column, "the column of `by`"), rule.shares)
    if rule.kind == "time":
        return _time_numbers(rule, table[rule.column])
    return _column_numbers(rule, table[rule.column], list(names))


def found_names(rule: Rule, table: pa.Table) -> list[str]:
    """The splits of these rows, in order of the rule, or of the alphabet where a column says it."""
    if rule.kind != "column":
        return rule.names
    found = pc.unique(table[rule.column]).to_pylist()
    for value in found:
        if not isinstance(value, str):
            raise BadInput(
                f'the column "{rule.column}" holds {value!r}, which names no split',
                "Give text in every row, such as train or test.",
                column=rule.column,
            )
        check_split_name(value)
    return sorted(found)


def _column_numbers(rule: Rule, values: pa.ChunkedArray, names: list[str]) -> npt.NDArray[np.int64]:
    found = pc.index_in(values, value_set=pa.array(names, pa.string()))
    numbers: npt.NDArray[np.int64] = found.to_numpy().astype(np.int64)
    return numbers


def _time_numbers(rule: Rule, values: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    if values.null_count:
        raise BadInput(
            f'{values.null_count} rows have no value in "{rule.column}", which decides their split',
            "Fill it, or filter such rows out.",
            column=rule.column,
        )
    numbers = np.zeros(len(values), np.int64)
    for name, end in list(rule.until.items())[:-1]:
        try:
            bound = _bound(end, values.type)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise BadInput(
                f'split "{name}" ends at {end!r}, which cannot be compared with {values.type}: '
                f"{error}",
                "Give a time for a column of times, a number for one of numbers.",
                column=rule.column,
            ) from None
        numbers += pc.greater_equal(values, bound).to_numpy().astype(np.int64)
    return numbers


def _bound(end: Any, kind: pa.DataType) -> pa.Scalar:
    if isinstance(end, str) and pa.types.is_temporal(kind):
        moment = datetime.datetime.fromisoformat(end)
        if pa.types.is_timestamp(kind) and kind.tz and moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        if pa.types.is_date(kind):
            return pa.scalar(moment.date(), kind)
        return pa.scalar(moment, kind)
    return pa.scalar(end, kind)
