"""Statistics of columns, gathered block by block in bounded memory, and merged over units.

A gatherer's state travels as a row of an Arrow table (`sketch_table`), which is also what the
manifest's table "sketches" holds: drift between two versions is told from it without their rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.data import times
from penstock.data.columns import Array, Column, one_chunk
from penstock.data.sketches import Distinct, Distribution, Even, hash_values

CATEGORIES = 256  # a column with more different values has no counts
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
ELEMENTS = 64  # of a tensor or list that enter its distribution, when it has more
_GOLDEN = 0.6180339887498949

SKETCH_SCHEMA = pa.schema(
    [
        ("column", pa.string()),
        ("rows", pa.int64()),
        ("nulls", pa.int64()),
        ("not_finite", pa.int64()),
        ("elements", pa.int64()),  # that the sum is of
        ("sum", pa.float64()),
        ("whole", pa.bool_()),  # whether the ends are whole numbers
        ("min", pa.string()),  # in decimal, so that every number keeps its digits
        ("max", pa.string()),
        ("shortest", pa.int64()),
        ("longest", pa.int64()),
        ("sampled", pa.int64()),  # elements that mean, m2 and buckets are of
        ("mean", pa.float64()),
        ("m2", pa.float64()),  # sum of squared distances from the mean
        ("shift", pa.int64()),
        ("buckets", pa.list_(pa.int64())),
        ("bucket_counts", pa.list_(pa.int64())),
        ("distinct", pa.list_(pa.uint64())),  # smallest hashes; missing where none are taken
        ("categories", pa.list_(pa.string())),  # missing where there are too many
        ("category_counts", pa.list_(pa.int64())),
    ]
)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of one column over a whole version. Counts, min, max and lengths are exact.

    rows        values, missing ones included
    nulls       missing values
    not_finite  values that are NaN or infinite; all that follows leaves them out
    min, max    of all elements of a tensor or list; of text and bytes: of the length; of times:
                whole numbers of the column's unit (see `times.py`), as all that follows; None for
                references
    mean        likewise, a float64 sum; None when there is nothing to take it of
    counts      value -> how often, for at most 256 different whole numbers, flags or texts
    std         standard deviation; of tensors and lists from at most 64 elements of each
    quantiles   at 1, 5, 25, 50, 75, 95 and 99 %, as far from the truth as 0.4 % of the value (more
                where values span many powers of two), of times of their span; of the same elements
                as std
    distinct    different values: exact up to 1024, then with a standard error of 3 %; None for
                tensors, lists and references
    shortest, longest  length of lists, text (characters) and bytes
    """

    rows: int
    nulls: int = 0
    not_finite: int = 0
    min: int | float | None = None
    max: int | float | None = None
    mean: float | None = None
    counts: dict[str, int] | None = None
    std: float | None = None
    quantiles: tuple[float, ...] | None = None
    distinct: int | None = None
    shortest: int | None = None
    longest: int | None = None


class Gatherer:
    """Gathers the statistics of one column: `add` every block once, `merge` those of later units
    in their order, then `result`.

    Sums are of float64: equal blocks and units in equal order give equal bits.
    distribution, distinct, counts  the sketches; None where the kind of column has none
    """

    def __init__(self, column: Column) -> None:
        self.column = column
        self.distribution = Even() if column.kind == "time" else Distribution()
        self.rows = self._nulls = self._not_finite = self._elements = 0
        self._sum = 0.0
        self._min: int | float | None = None
        self._max: int | float | None = None
        self._lengths: tuple[int, int] | None = None
        self._moments = (0, 0.0, 0.0)  # n, mean, sum of squared distances
        scalar = column.kind in ("number", "text", "bytes", "time")
        self.distinct = Distinct() if scalar else None
        countable = column.kind == "text" or (
            column.kind == "number" and not column.dtype.startswith("float")
        )
        self.counts: Counter[str] | None = Counter() if countable else None

    @property
    def elements(self) -> int:
        """Finite numbers that were seen: of tensors and lists, their elements."""
        return self._elements

    def add(self, values: pa.ChunkedArray) -> None:
        """Take one block of the column into account."""
        array = one_chunk(values)
        self.rows += len(array)
        self._nulls += array.null_count
        if self.distinct is not None:
            self.distinct.add(hash_values(array, self.column))
        if self.counts is not None:
            self._count(array)
        if self.column.kind == "reference":
            return
        numbers = self._numbers(array)
        sampled = _sample(array, self.column, numbers)
        finite = self._measure(numbers)
        self._spread(finite if sampled is numbers else _finite(sampled))

    def _numbers(self, array: pa.Array) -> Array:
        if self.column.kind == "time":
            return times.counts(array)
        if self.column.kind == "tensor":
            array = array.storage.flatten()
        elif self.column.kind in ("text", "bytes", "list"):
            lengths = _lengths(array, self.column.kind).drop_null()
            ends = pc.min_max(lengths)
            self._widen(ends["min"].as_py(), ends["max"].as_py())
            array = array.flatten() if self.column.kind == "list" else lengths
        array = array.drop_null()
        found: Array = array.to_numpy(zero_copy_only=not pa.types.is_boolean(array.type))
        return found

    def _widen(self, shortest: int | None, longest: int | None) -> None:
        if shortest is not None and longest is not None:
            low, high = self._lengths or (shortest, longest)
            self._lengths = min(low, shortest), max(high, longest)

    def _measure(self, numbers: Array) -> Array:
        """Ends and sum; returns the finite numbers."""
        finite = _finite(numbers)
        self._not_finite += int(numbers.size - finite.size)
        if not finite.size:
            return finite
        low, high = finite.min().item(), finite.max().item()
        self._stretch(*((int(low), int(high)) if finite.dtype.kind == "b" else (low, high)))
        self._elements += finite.size
        with np.errstate(over="ignore", invalid="ignore"):  # a mean beyond float64 is no mean
            self._sum += float(finite.sum(dtype=np.float64))
        return finite

    def _stretch(self, low: int | float | None, high: int | float | None) -> None:
        if low is not None and high is not None:
            self._min = low if self._min is None else min(self._min, low)
            self._max = high if self._max is None else max(self._max, high)

    def _spread(self, numbers: Array) -> None:
        if not numbers.size:
            return
        self.distribution.add(numbers)
        with np.errstate(over="ignore", invalid="ignore"):
            wide = numbers.astype(np.float64)
            mean = float(wide.mean())
            self._moments = _joined(
                self._moments, (wide.size, mean, float(((wide - mean) ** 2).sum()))
            )

    def _count(self, array: pa.Array) -> None:
        counted = pc.value_counts(array.drop_null())
        if len(counted) > CATEGORIES:
            self.counts = None
            return
        self._add_counts((_name(e["values"]), e["counts"]) for e in counted.to_pylist())

    def _add_counts(self, counts: Iterable[tuple[str, int]]) -> None:
        if self.counts is not None:
            for name, count in counts:
                self.counts[name] += count
            if len(self.counts) > CATEGORIES:
                self.counts = None

    def merge(self, later: Gatherer) -> None:
        """Take the rows that another gatherer has seen into account; they come after ours."""
        unknown = self._unknown or later._unknown
        self.rows += later.rows
        self._nulls += later._nulls
        self._not_finite += later._not_finite
        self._elements += later._elements
        self._sum += later._sum
        self._stretch(later._min, later._max)
        self._widen(*(later._lengths or (None, None)))
        self._moments = _joined(self._moments, later._moments)
        self.distribution.merge(later.distribution)
        if self.distinct is not None and later.distinct is not None:
            self.distinct.merge(later.distinct)
        if later.counts is None:
            self.counts = None
        else:
            self._add_counts(later.counts.items())
        if unknown:
            self._forget()

    @property
    def _unknown(self) -> bool:
        """Whether it holds times of which an older version gathered nothing but their number."""
        return self.column.kind == "time" and self._elements < self.rows - self._nulls

    def _forget(self) -> None:
        """What is known of some of the times is known of none."""
        self._elements, self._sum, self._moments = 0, 0.0, (0, 0.0, 0.0)
        self._min = self._max = None
        self.distribution = Even()

    def result(self) -> Statistics:
        sampled, _, m2 = self._moments
        return Statistics(
            rows=self.rows,
            nulls=self._nulls,
            not_finite=self._not_finite,
            min=self._min,
            max=self._max,
            mean=_plain(self._sum / self._elements) if self._elements else None,
            counts=None if self.counts is None else dict(sorted(self.counts.items())),
            std=_plain((max(m2, 0.0) / sampled) ** 0.5) if sampled else None,
            quantiles=self._quantiles() if sampled else None,
            distinct=None if self.distinct is None else self.distinct.count,
            shortest=None if self._lengths is None else self._lengths[0],
            longest=None if self._lengths is None else self._lengths[1],
        )

    def _quantiles(self) -> tuple[float, ...]:
        low, high = float(self._min or 0), float(self._max or 0)
        found = self.distribution.quantiles(QUANTILES)
        if isinstance(self._min, int):
            found = [float(int(each)) for each in found]
        return tuple(min(max(each, low), high) for each in found)

    def row(self) -> dict[str, Any]:
        """Its state as a row of SKETCH_SCHEMA."""
        sampled, mean, m2 = self._moments
        shortest, longest = self._lengths or (None, None)
        counts = None if self.counts is None else sorted(self.counts.items())
        return {
            "column": self.column.name,
            "rows": self.rows,
            "nulls": self._nulls,
            "not_finite": self._not_finite,
            "elements": self._elements,
            "sum": self._sum,
            "whole": isinstance(self._min, int),
            "min": None if self._min is None else repr(self._min),
            "max": None if self._max is None else repr(self._max),
            "shortest": shortest,
            "longest": longest,
            "sampled": sampled,
            "mean": mean,
            "m2": m2,
            "shift": self.distribution.shift,
            "buckets": self.distribution.keys,
            "bucket_counts": self.distribution.counts,
            "distinct": None if self.distinct is None else self.distinct.smallest,
            "categories": None if counts is None else [name for name, _ in counts],
            "category_counts": None if counts is None else [count for _, count in counts],
        }

    @classmethod
    def of(cls, column: Column, row: Mapping[str, Any]) -> Gatherer:
        """The gatherer that a row is the state of."""
        found = cls(column)
        found.rows, found._nulls, found._not_finite = row["rows"], row["nulls"], row["not_finite"]
        found._elements, found._sum = row["elements"], row["sum"]
        if row["min"] is not None:
            kind = int if row["whole"] else float
            found._min, found._max = kind(row["min"]), kind(row["max"])
        if row["shortest"] is not None:
            found._lengths = row["shortest"], row["longest"]
        found._moments = row["sampled"], row["mean"], row["m2"]
        if row["buckets"]:
            kind_of = type(found.distribution)
            found.distribution = kind_of(row["shift"], row["buckets"], row["bucket_counts"])
        if row["distinct"] is not None:
            found.distinct = Distinct(row["distinct"])
        counts, names = row["category_counts"], row["categories"]
        found.counts = None if names is None else Counter(dict(zip(names, counts, strict=True)))
        return found


def _sample(array: pa.Array, column: Column, numbers: Array) -> Array:
    """The elements that enter the distribution: all, or 64 of each larger tensor or list.

    Places follow the golden ratio, so that they keep to no row or channel of a picture.
    """
    steps = np.arange(ELEMENTS) * _GOLDEN % 1.0
    if column.kind == "tensor":
        size = numbers.size // max(1, len(array))
        if size <= ELEMENTS:
            return numbers
        return numbers.reshape(-1, size)[:, np.unique((steps * size).astype(np.int64))].reshape(-1)
    if column.kind != "list" or numbers.size <= ELEMENTS * len(array):
        return numbers
    sizes = _lengths(array, "list").fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    starts = np.cumsum(sizes) - sizes
    long = sizes > ELEMENTS
    picked = starts[long, None] + (steps * sizes[long, None]).astype(np.int64)
    return np.concatenate([numbers[np.repeat(~long, sizes)], numbers[picked.reshape(-1)]])


def _lengths(array: pa.Array, kind: str) -> pa.Array:
    if kind == "list":
        return pc.list_value_length(array)
    return pc.utf8_length(array) if kind == "text" else pc.binary_length(array)


def _finite(numbers: Array) -> Array:
    if numbers.dtype.kind != "f":
        return numbers
    finite = np.isfinite(numbers)
    return numbers if finite.all() else numbers[finite]


Moments = tuple[int, float, float]


def _joined(one: Moments, other: Moments) -> Moments:
    """n, mean and sum of squared distances of both together.

    Source: Chan, Golub, LeVeque 1979, Updating formulae and a pairwise algorithm for computing
    sample variances.
    """
    if not one[0] or not other[0]:
        return other if other[0] else one
    n = one[0] + other[0]
    apart = other[1] - one[1]
    mean = one[1] + apart * other[0] / n
    return n, mean, one[2] + other[2] + apart * apart * one[0] * other[0] / n


def _name(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(value: float) -> float | None:
    return value if np.isfinite(value) else None


def gatherers(columns: Sequence[Column], but: str) -> dict[str, Gatherer]:
    """One for each column except the key, whose every value is another."""
    return {each.name: Gatherer(each) for each in columns if each.name != but}


def sketch_table(found: Iterable[Gatherer]) -> pa.Table:
    """Their states, a row each: for another process, or for the manifest's table "sketches"."""
    return pa.Table.from_pylist([each.row() for each in found], schema=SKETCH_SCHEMA)


def read_sketches(table: pa.Table, columns: Sequence[Column]) -> dict[str, Gatherer]:
    """The gatherers that a sketch table holds, by column; of columns that are not there no more
    none."""
    known = {each.name: each for each in columns}
    return {
        row["column"]: Gatherer.of(known[row["column"]], row)
        for row in table.to_pylist()
        if row["column"] in known
    }
