"""Several sources as one: their rows are numbered one source after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penstock.base.errors import BadInput
from penstock.base.hashing import digest_json
from penstock.data.columns import Column, Values
from penstock.data.order import Rows


class JoinedSource:
    """Row r is row r - n_0 - … of the source in which it falls. Owns the sources: `close` closes
    them. Raises BadInput when their columns differ, telling all differences."""

    def __init__(self, sources: Mapping[str, Any]) -> None:
        self._names = list(sources)
        self._sources = list(sources.values())
        self._ends = np.cumsum([len(each) for each in self._sources])
        self.identity = digest_json(["penstock-joined-1", *(s.identity for s in self._sources)])
        self.columns: Sequence[Column] = self._agreed()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _agreed(self) -> list[Column]:
        told = [getattr(each, "columns", None) for each in self._sources]
        if not all(told):
            return []  # `gather` will see
        wanted = {each.name: each for each in told[0] or ()}
        wrong = []
        for name, columns in zip(self._names[1:], told[1:], strict=True):
            found = {each.name: each for each in columns or ()}
            for column in sorted(wanted.keys() | found.keys()):
                one, other = wanted.get(column), found.get(column)
                if one is None or other is None or one.storage != other.storage:
                    wrong.append(f'"{column}": {one or "missing"} in {self._names[0]}, '
                                 f"{other or 'missing'} in {name}")  # fmt: skip
        if wrong:
            raise BadInput(
                "the sources of a mixture have different columns:\n  " + "\n  ".join(wrong),
                "Prepare them alike, or choose columns that all have with columns=[…].",
            )
        return list(told[0] or ())

    def gather(self, rows: Rows) -> dict[str, Values]:
        """These rows in this order: column -> new array, or a list."""
        numbers = np.searchsorted(self._ends, rows, side="right")
        out: dict[str, Values] = {}
        present = np.unique(numbers).tolist() or [0]
        for number in present:
            at = np.flatnonzero(numbers == number)
            first = self._first(number)
            part = self._sources[number].gather(rows[at] - first)
            if len(present) == 1:
                return dict(part)
            if out and part.keys() != out.keys():
                raise BadInput(
                    f"samples of {self._names[number]} have entries {list(part)}, those of "
                    f"others {list(out)}",
                    "Let all sources of a mixture give the same entries.",
                )
            for name, values in part.items():
                _put(out, name, values, at, len(rows), self._names[number])
        return out

    def _first(self, number: int) -> int:
        return int(self._ends[number - 1]) if number else 0

    def _hint(self, which: str, rows: Rows) -> None:
        numbers = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(numbers).tolist():
            if (take := getattr(self._sources[number], which, None)) is not None:
                take(rows[numbers == number] - self._first(number))

    def ahead(self, rows: Rows) -> None:
        """These rows are wanted soon."""
        self._hint("ahead", rows)

    def done(self, rows: Rows) -> None:
        """Nothing: in a mixture the sources' epochs differ, so no row is done for good."""

    def close(self) -> None:
        for each in self._sources:
            if (end := getattr(each, "close", None)) is not None:
                end()


def _put(
    out: dict[str, Values], name: str, values: Values, at: Rows, total: int, source: str
) -> None:
    """Values of one source into their places among the others'."""
    if isinstance(values, list):
        places = out.setdefault(name, [None] * total)
        for place, value in zip(at.tolist(), values, strict=True):
            places[place] = value
        return
    there = out.setdefault(name, np.empty((total, *values.shape[1:]), values.dtype))
    if isinstance(there, list) or (there.shape[1:], there.dtype) != (
        values.shape[1:],
        values.dtype,
    ):
        raise BadInput(
            f'entry "{name}" of {source} is {values.dtype}{list(values.shape[1:])}, other than in '
            "another source of the mixture",
            "Let all sources of a mixture give the same shapes.",
        )
    there[at] = values
