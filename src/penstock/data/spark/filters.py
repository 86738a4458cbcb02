"""Which shards a condition lets us pass over, by what the manifest says of each.

    (column, "=" | "<" | "<=" | ">" | ">=" | "in", value)

`may_hold` says whether a shard may have a row for which all conditions are true; whoever is in
doubt says yes. Spark itself compares every row that comes.

Why not Spark's own way, `DataSourceReader.pushFilters`: up to Spark 4.3 what a reader made of the
filters of one query is kept with the DataFrame, so that the next query of the same DataFrame, or
its other branch in the same query, lacks the shards that the first one passed over.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.data.columns import Column
from penstock.data.manifest import Manifest

_EXACT = 2.0**53  # whole numbers beyond are rounded in the statistics
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

Asked = tuple[str, str, Any]


@dataclass(frozen=True)
class Facts:
    """Of one column in one shard; low and high None where there is nothing to compare."""

    rows: int
    nulls: int
    low: float | None
    high: float | None


def asked_of(given: Any, columns: Mapping[str, Column]) -> list[Asked]:
    """The conditions, checked. Raises BadInput."""
    found: list[Asked] = []
    for each in given or ():
        if not isinstance(each, tuple | list) or len(each) != 3:
            raise BadInput(
                f"{each!r} is no condition",
                'Such as where=[("id", ">=", 1000), ("kind", "in", ["a", "b"])].',
            )
        column, operator, value = each
        if column not in columns or columns[column].kind not in _COMPARED:
            what = columns[column].kind if column in columns else "not in the data"
            raise BadInput(
                f'where compares "{column}", which is {what}', did_you_mean(column, columns)
            )
        if operator not in _TESTS and operator != "in":
            raise BadInput(
                f'where says "{operator}"',
                f"One of {', '.join(_TESTS)} and in; `df.where` knows more.",
            )
        if value is None or (operator == "in" and not isinstance(value, list | tuple | set)):
            raise BadInput(
                f'where compares "{column}" with {value!r}',
                'Give a value, with "in" a list of them; df.where("x IS NULL") finds missing ones.',
            )
        found.append((column, operator, list(value) if operator == "in" else value))
    return found


def shards_for(manifest: Manifest, split: str, asked: Sequence[Asked]) -> list[int]:
    """Numbers of the shards that may have a row that passes, in order.

    Raises NotFound and Damaged where the statistics are gone or altered.
    """
    shards = list(manifest.shards_of(split))
    table = manifest.table("statistics") if asked else None
    if table is None:
        return list(range(len(shards)))
    wanted = {column for column, _, _ in asked}
    facts: list[dict[str, Facts]] = [{} for _ in shards]
    for each in table.to_pylist():
        if each["split"] == split and each["column"] in wanted:
            rows = shards[each["number"]].rows
            found = Facts(rows, each["nulls"], each["min"], each["max"])
            facts[each["number"]][each["column"]] = found
    columns = manifest.schema
    return [number for number, own in enumerate(facts) if may_hold(asked, columns, own)]


def may_hold(
    asked: Sequence[Asked], columns: Mapping[str, Column], facts: Mapping[str, Facts]
) -> bool:
    """Whether a shard may have a row for which all conditions are true.

    facts  of its columns
    """
    return all(
        _may(operator, value, columns[column], facts[column])
        for column, operator, value in asked
        if column in facts
    )


def _may(operator: str, value: Any, column: Column, facts: Facts) -> bool:
    if facts.nulls == facts.rows:
        return False  # nothing is true of a missing value
    if operator == "in":
        return any(_may("=", each, column, facts) for each in value)
    if column.kind in ("text", "bytes"):
        return _of_length(operator, value, facts)
    number = _number(value, column)
    if number is None or math.isnan(number):
        return True
    floating = column.dtype.startswith("float")
    if floating and operator.startswith(">"):
        return True  # NaN is greater than all to Spark, and is not in the statistics
    if facts.low is None or facts.high is None:
        return not floating or operator != "="
    return _TESTS[operator](number, *_widened(facts.low, facts.high))


_COMPARED = ("number", "time", "text", "bytes")
_TESTS: dict[str, Callable[[float, float, float], bool]] = {
    "=": lambda value, low, high: low <= value <= high,
    "<": lambda value, low, high: low < value,
    "<=": lambda value, low, high: low <= value,
    ">": lambda value, low, high: high > value,
    ">=": lambda value, low, high: high >= value,
}


def _widened(low: float, high: float) -> tuple[float, float]:
    """The ends, further apart where they may have been rounded."""
    if abs(low) >= _EXACT:
        low = math.nextafter(low, -math.inf)
    if abs(high) >= _EXACT:
        high = math.nextafter(high, math.inf)
    return low, high


def _of_length(operator: str, value: Any, facts: Facts) -> bool:
    """Of text and bytes the statistics know the lengths."""
    if operator != "=" or facts.low is None or facts.high is None:
        return True
    return not isinstance(value, str | bytes) or facts.low <= len(value) <= facts.high


def _number(value: Any, column: Column) -> float | None:
    """A value as the statistics have it; None where it cannot be compared with them."""
    if column.kind == "time":
        return _ticks(value, column.dtype)
    if isinstance(value, bool | int | float):
        try:
            exact = float(value)
        except OverflowError:
            return None
        return exact if abs(exact) < _EXACT or column.dtype.startswith("float") else None
    return None


def _ticks(value: Any, dtype: str) -> float | None:
    """A date or time in whole numbers of the column's unit since 1970.

    >>> import datetime
    >>> _ticks(datetime.date(1970, 1, 3), "date32[day]")
    2.0
    """
    if dtype.startswith("date32"):
        plain = isinstance(value, datetime.date) and not isinstance(value, datetime.datetime)
        return float((value - _EPOCH.date()).days) if plain else None
    if not dtype.startswith("timestamp[") or not isinstance(value, datetime.datetime):
        return None
    if ("tz=" in dtype) != (value.tzinfo is not None):
        return None
    moment = value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)
    unit = dtype.removeprefix("timestamp[").split(",")[0].rstrip("]")
    ticks = (moment - _EPOCH) // datetime.timedelta(microseconds=1) * _TICKS[unit] / 10**6
    return ticks if abs(ticks) < _EXACT or unit == "ns" else None
