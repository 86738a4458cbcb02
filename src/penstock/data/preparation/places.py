"""Where the records of a unit stand in the raw data, found on demand.

Rows carry the number of the record that they were made of, counted as the unit's inputs are read
(int32); its place is told by reading these inputs again, without the steps. So places cost four
bytes a row, and time only where they are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from penstock.base.errors import PenstockError
from penstock.data.formats import BadRecord, Input, InputSource

RECORD = "penstock.record"  # the column of a unit's blob that holds the numbers
Locate = Callable[[int], str]


def told(locate: Locate, record: int) -> str:
    """The place of a record; ~n is n or one after it, as a batch gave another number of rows."""
    return locate(record) if record >= 0 else f"{locate(~record)} or after"


class Places:
    """Of one unit; `places(record)` says where a record stands.

    Reads the inputs once, on the first question, and keeps what tells places: drop it soon. Inputs
    that cannot be read any more are named instead.
    """

    def __init__(self, source: InputSource, inputs: Sequence[Input]) -> None:
        self._source, self._inputs = source, inputs
        self._blocks: list[tuple[int, int, Locate]] | None = None

    def __call__(self, record: int) -> str:
        if self._blocks is None:
            self._blocks = list(self._read())
        return next(
            (place(record - first) for first, end, place in self._blocks if first <= record < end),
            self._unknown(record),
        )

    def of(self, records: Iterable[int]) -> list[str]:
        """The places of several, in one reading that keeps nothing."""
        asked = list(records)
        wanted = sorted({each if each >= 0 else ~each for each in asked})
        found: dict[int, str] = {}
        at = 0
        for first, end, place in self._read() if wanted else ():
            while at < len(wanted) and wanted[at] < end:
                found[wanted[at]] = place(wanted[at] - first)
                at += 1
            if at == len(wanted):
                break
        return [told(lambda n: found.get(n, self._unknown(n)), each) for each in asked]

    def _read(self) -> Iterator[tuple[int, int, Locate]]:
        first = 0
        try:
            for each in self._source.read_on(self._inputs):
                if not isinstance(each, BadRecord):
                    yield first, first + len(each), each.place
                    first += len(each)
        except PenstockError:  # the file is another one by now, or gone
            return

    def _unknown(self, record: int) -> str:
        return f"{between([self._inputs[0].name, self._inputs[-1].name])} (record {record})"


def between(names: Sequence[str]) -> str:
    """The inputs of a unit, for people."""
    return names[0] if names[0] == names[-1] else f"{names[0]} to {names[-1]}"
