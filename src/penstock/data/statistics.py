"""Statistics of columns, gathered block by block in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.data.columns import Array, Column, one_chunk

CATEGORIES = 256  # a column with more different values has no counts


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of one column over a whole version; every field is exact but `mean`, a float64 sum.

    rows        values, missing ones included
    nulls       missing values
    not_finite  values that are NaN or infinite; min, max and mean leave them out
    min, max    of all elements of a tensor; of text and bytes: of the length; None for time
    mean        likewise; None when there is nothing to take it of
    counts      value -> how often, for at most 256 different whole numbers, flags or texts
    """

    rows: int
    nulls: int = 0
    not_finite: int = 0
    min: int | float | None = None
    max: int | float | None = None
    mean: float | None = None
    counts: dict[str, int] | None = None


class Gatherer:
    """Gathers the statistics of one column: `add` every block once, then `result`."""

    def __init__(self, column: Column) -> None:
        self._column = column
        self._rows = self._nulls = self._not_finite = self._elements = 0
        self._sum = 0.0
        self._min: int | float | None = None
        self._max: int | float | None = None
        countable = column.kind == "text" or (
            column.kind == "number" and not column.dtype.startswith("float")
        )
        self._counts: Counter[str] | None = Counter() if countable else None

    def add(self, values: pa.ChunkedArray) -> None:
        """Take one block of the column into account."""
        self._rows += len(values)
        self._nulls += values.null_count
        if self._counts is not None:
            self._count(values)
        if self._column.kind not in ("time", "reference"):
            self._measure(self._numbers(values))

    def _numbers(self, values: pa.ChunkedArray) -> Array:
        array = one_chunk(values)
        if self._column.kind == "tensor":
            array = array.storage.flatten()
        elif self._column.kind == "list":
            array = array.flatten()
        elif self._column.kind in ("text", "bytes"):
            text = self._column.kind == "text"
            array = pc.utf8_length(array) if text else pc.binary_length(array)
        array = array.drop_null()
        found: Array = array.to_numpy(zero_copy_only=not pa.types.is_boolean(array.type))
        return found

    def _measure(self, numbers: Array) -> None:
        if numbers.dtype.kind == "f":
            finite = np.isfinite(numbers)
            if not finite.all():
                self._not_finite += int(numbers.size - finite.sum())
                numbers = numbers[finite]
        if not numbers.size:
            return
        low, high = numbers.min().item(), numbers.max().item()
        low, high = (int(low), int(high)) if numbers.dtype.kind == "b" else (low, high)
        self._min = low if self._min is None else min(self._min, low)
        self._max = high if self._max is None else max(self._max, high)
        self._elements += numbers.size
        with np.errstate(over="ignore", invalid="ignore"):  # a mean beyond float64 is no mean
            self._sum += float(numbers.sum(dtype=np.float64))

    def _count(self, values: pa.ChunkedArray) -> None:
        counts = self._counts
        if counts is None:
            return
        for entry in pc.value_counts(one_chunk(values).drop_null()).to_pylist():
            value = entry["values"]
            counts[str(value).lower() if isinstance(value, bool) else str(value)] += entry["counts"]
        if len(counts) > CATEGORIES:
            self._counts = None

    def result(self) -> Statistics:
        mean = self._sum / self._elements if self._elements else None
        return Statistics(
            rows=self._rows,
            nulls=self._nulls,
            not_finite=self._not_finite,
            min=self._min,
            max=self._max,
            mean=mean if mean is None or np.isfinite(mean) else None,
            counts=None if self._counts is None else dict(sorted(self._counts.items())),
        )


def gatherers(columns: Sequence[Column], but: str) -> dict[str, Gatherer]:
    """One for each column except the key, whose every value is another."""
    return {each.name: Gatherer(each) for each in columns if each.name != but}
