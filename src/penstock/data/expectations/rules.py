"""The rules: what each means, which rows break it, and what statistics alone say of it.

How literals of the file meet values: see `ends.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock.data import times
from penstock.data.columns import Array, Column
from penstock.data.expectations.distance import by_chance, psi, shares_of
from penstock.data.expectations.ends import edges, ends_told, limits, outside
from penstock.data.statistics import Gatherer, Statistics
from penstock.data.types import describe

Rows = npt.NDArray[np.bool_]
Values = Mapping[str, Any]

OTHERS = "other values"  # the bin of categories that the file does not name


class Facts(NamedTuple):
    """What is known of a column without its rows; without sketches no gatherer."""

    column: Column
    statistics: Statistics
    gatherer: Gatherer | None


@dataclass(frozen=True)
class Rule:
    """One rule for columns.

    words    what it means, for the head of the file
    fields   its values: name -> (what they must be, whether they must be there)
    fits     whether it can be asked of a column
    bad      which values break it: bool [n]; None for a rule about the column as a whole
    told     what is wrong by statistics, in words; None when nothing is
    by_row   whether rows break it one by one, so that they can be set aside
    is_told  whether statistics that show no breach are proof that there is none
    """

    words: str
    fields: Mapping[str, tuple[str, bool]]
    fits: Callable[[Column], bool]
    told: Callable[[Values, Facts], str | None]
    bad: Callable[[Values, pa.Array, Column], Rows] | None = None
    by_row: Callable[[Values], bool] = lambda values: True
    is_told: Callable[[Facts], bool] = lambda facts: True

    def sets_aside(self, values: Values) -> bool:
        """Whether it can be asked of each row by itself."""
        return self.bad is not None and self.by_row(values)


def flat(array: pa.Array, column: Column) -> Array:
    """The elements of numbers, tensors and lists, without missing values; times as int64."""
    if column.kind == "time":
        return times.counts(array)
    if column.kind == "tensor":
        array = array.storage.flatten()
    elif column.kind == "list":
        array = array.flatten()
    found: Array = array.drop_null().to_numpy(zero_copy_only=False)
    return found


def by_value(wrong: Rows, array: pa.Array, column: Column) -> Rows:
    """From elements that are wrong to values that hold one: bool [n]."""
    if column.kind == "tensor":
        return np.asarray(wrong.reshape(len(array), -1).any(axis=1), bool)
    found = np.zeros(len(array), bool)
    if column.kind == "list":
        found[array.value_parent_indices().to_numpy()[wrong]] = True
    else:
        found[np.flatnonzero(array.is_valid().to_numpy(zero_copy_only=False))[wrong]] = True
    return found


def _range_bad(values: Values, array: pa.Array, column: Column) -> Rows:
    least, most = limits(values, column)
    numbers = flat(array, column)
    wrong = outside(numbers, least, most)
    if numbers.dtype.kind == "f":  # infinity is the business of `finite`
        wrong &= np.isfinite(numbers)
    return by_value(wrong, array, column)


def _range_told(values: Values, facts: Facts) -> str | None:
    found, column = facts.statistics, facts.column
    return ends_told("value", found.min, found.max, *limits(values, column), column)


def _has_ends(facts: Facts) -> bool:
    """Statistics of older versions have no ends of times."""
    found = facts.statistics
    return facts.column.kind != "time" or found.min is not None or found.rows == found.nulls


def _length_bad(values: Values, array: pa.Array, column: Column) -> Rows:
    if column.kind == "list":
        lengths = pc.list_value_length(array)
    else:
        lengths = pc.utf8_length(array) if column.kind == "text" else pc.binary_length(array)
    wrong = outside(
        lengths.drop_null().to_numpy(zero_copy_only=False), values.get("least"), values.get("most")
    )
    return by_value(wrong, array, Column(column.name, "number", "int64"))


def _length_told(values: Values, facts: Facts) -> str | None:
    found = facts.statistics
    return ends_told(
        "length", found.shortest, found.longest, values.get("least"), values.get("most")
    )


def _missing_bad(values: Values, array: pa.Array, column: Column) -> Rows:
    found: Rows = array.is_null().to_numpy(zero_copy_only=False)
    return found


def _share_told(what: str, part: int, whole: int, most: float) -> str | None:
    share = part / max(1, whole)
    if share <= most:
        return None
    return f"{part} of {whole} ({share:.2%}) are {what}, expected at most {most:.2%}"


def _missing_told(values: Values, facts: Facts) -> str | None:
    found = facts.statistics
    return _share_told("missing", found.nulls, found.rows, values["most"])


def _finite_bad(values: Values, array: pa.Array, column: Column) -> Rows:
    return by_value(~np.isfinite(flat(array, column)), array, column)


def _finite_told(values: Values, facts: Facts) -> str | None:
    found, shape = facts.statistics, facts.column.shape
    whole = (found.rows - found.nulls) * math.prod(shape)
    if facts.gatherer is not None:
        whole = facts.gatherer.elements + found.not_finite
    return _share_told("not finite", found.not_finite, whole, values["most"])


def _names(values: Values) -> set[str]:
    return {str(each).lower() if isinstance(each, bool) else str(each) for each in values["are"]}


def _categories_bad(values: Values, array: pa.Array, column: Column) -> Rows:
    text = array if column.kind == "text" else array.cast(pa.string())
    known = pc.is_in(text, pa.array(sorted(_names(values)), pa.string()))
    found: Rows = pc.and_(array.is_valid(), pc.invert(known)).to_numpy(zero_copy_only=False)
    return found


def _categories_told(values: Values, facts: Facts) -> str | None:
    counts = facts.statistics.counts
    if counts is None:
        return "more different values than can be counted" if facts.statistics.rows else None
    new = [name for name in counts if name not in _names(values)]
    if not new:
        return None
    return f"not expected: {_listed(new)} (rows: {sum(counts[name] for name in new)})"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f'"{name}"' for name in names[:5]) + more


def _pattern_bad(values: Values, array: pa.Array, column: Column) -> Rows:
    wanted = re.compile(values["is"])
    return np.array(
        [each is not None and wanted.search(each) is None for each in array.to_pylist()], bool
    )


def _type_told(values: Values, facts: Facts) -> str | None:
    column = facts.column
    found = []
    if describe(column) != values["is"]:
        found.append(f"it is {describe(column)}, expected {values['is']}")
    if "meaning" in values and column.meaning != values["meaning"]:
        found.append(f'it means "{column.meaning}", expected "{values["meaning"]}"')
    return " and ".join(found) or None


def _counts_exactly(facts: Facts) -> bool:
    distinct = None if facts.gatherer is None else facts.gatherer.distinct
    return distinct is not None and distinct.exact


def _unique_told(values: Values, facts: Facts) -> str | None:
    found = facts.statistics
    there = found.rows - found.nulls
    if not _counts_exactly(facts) or found.distinct is None or found.distinct >= there:
        return None
    return f"{there - found.distinct} of {there} values repeat another"


def _distribution_told(values: Values, facts: Facts) -> str | None:
    shares = now_shares(values, facts)
    if shares is None:
        return None
    there = facts.statistics.rows - facts.statistics.nulls
    before = values.get("of", there)
    apart = psi(values["shares"], shares, before, there)
    chance = by_chance(len(shares), before, there)
    if apart <= max(values["most"], chance):
        return None
    worst = int(np.argmax(np.abs(np.array(shares) - values["shares"])))
    return (
        f"its distribution has moved by {apart:.2f} (PSI), expected at most {values['most']:g}; "
        f"most at {_bin(values, worst)}: {values['shares'][worst]:.1%} before, "
        f"{shares[worst]:.1%} now"
    )


def now_shares(values: Values, facts: Facts) -> list[float] | None:
    """The shares of the bins of a distribution rule; None when nothing is there to count."""
    if "names" in values:
        counts = facts.statistics.counts
        there = facts.statistics.rows - facts.statistics.nulls
        if not there:
            return None
        named = [(counts or {}).get(str(name), 0) for name in values["names"]]
        return [count / there for count in (*named, there - sum(named))]
    if facts.gatherer is None or not facts.gatherer.distribution.total:
        return None
    return shares_of(facts.gatherer.distribution, edges(values["edges"], facts.column))


def _bin(values: Values, number: int) -> str:
    if "names" in values:
        return f'"{values["names"][number]}"' if number < len(values["names"]) else OTHERS
    ends = [each if isinstance(each, str) else f"{each:g}" for each in values["edges"]]
    return f"{['-∞', *ends][number]} to {[*ends, '∞'][number]}"


def _kinds(*kinds: str) -> Callable[[Column], bool]:
    return lambda column: column.kind in kinds


def _exact_zero(values: Values) -> bool:
    return bool(values["most"] == 0)


def refuse_misfits(rule: str, values: Values, column: Column) -> None:
    """Raise BadInput where ends or edges cannot be compared with the column's values."""
    if rule == "range":
        limits(values, column)
    if "edges" in values:
        edges(values["edges"], column)


_NUMERIC = _kinds("number", "tensor", "list")

RULES: dict[str, Rule] = {
    "type": Rule(
        "the column is there and is kept so; `meaning`: and means this",
        {"is": ("text", True), "meaning": ("text", False)},
        lambda column: True,
        _type_told,
    ),
    "missing": Rule(
        "at most this share of the values is missing",
        {"most": ("share", True)},
        lambda column: True,
        _missing_told,
        _missing_bad,
        _exact_zero,
    ),
    "finite": Rule(
        "at most this share of the numbers is NaN or infinite",
        {"most": ("share", True)},
        lambda column: _NUMERIC(column) and column.dtype.startswith("float"),
        _finite_told,
        _finite_bad,
        _exact_zero,
    ),
    "range": Rule(
        "every finite number (of a tensor or list: element) or time (as ISO text) lies between "
        "these, ends included",
        {"least": ("end", False), "most": ("end", False)},
        _kinds("number", "tensor", "list", "time"),
        _range_told,
        _range_bad,
        is_told=_has_ends,
    ),
    "length": Rule(
        "lengths of text (characters), bytes and lists, ends included",
        {"least": ("number", False), "most": ("number", False)},
        _kinds("text", "bytes", "list"),
        _length_told,
        _length_bad,
    ),
    "categories": Rule(
        "every value is one of these",
        {"are": ("names", True)},
        lambda column: (
            column.kind == "text"
            or (column.kind == "number" and not column.dtype.startswith("float"))
        ),
        _categories_told,
        _categories_bad,
    ),
    "pattern": Rule(
        "this regular expression is found in every text",
        {"is": ("pattern", True)},
        _kinds("text"),
        lambda values, facts: None,
        _pattern_bad,
        is_told=lambda facts: False,
    ),
    "unique": Rule(
        "no two values are equal",
        {},
        _kinds("number", "text", "bytes", "time"),
        _unique_told,
        by_row=lambda values: False,
        is_told=_counts_exactly,
    ),
    "distribution": Rule(
        "values (of text and bytes: lengths) fall into the bins between `edges`, or on `names`, "
        "with about these `shares`, found in `of` rows: their population stability index is at "
        "most `most` (0.1 is near, 0.2 is far) or within chance",
        {
            "most": ("number", True),
            "of": ("number", False),
            "edges": ("ends", False),
            "names": ("names", False),
            "shares": ("numbers", True),
        },
        lambda column: column.kind != "reference",
        _distribution_told,
        by_row=lambda values: False,
        is_told=lambda facts: facts.gatherer is not None and _has_ends(facts),
    ),
}

DATASET_RULES: dict[str, tuple[str, dict[str, tuple[str, bool]]]] = {
    "rows": (
        "how many rows there are",
        {"least": ("number", False), "most": ("number", False)},
    ),
    "other_columns": ("no column but those that have a section here", {}),
}

LEAKAGE_RULES: dict[str, tuple[str, dict[str, tuple[str, bool]]]] = {
    "key": ("no key is in two splits", {}),
    "episode": ("no value of this column is in two splits", {"column": ("text", True)}),
    "content": ("no row of one split equals one of another in all columns but the key", {}),
}
