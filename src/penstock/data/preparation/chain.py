"""Steps over the rows of a unit: one after the other, streamed, a bad record never stops the rest.

Rows flow in blocks, as an Arrow table or as dictionaries, whatever the step before gave; each row
carries the number of the record that it was made of, whose place in the raw data `place` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.data.columns import Column, to_numpy
from penstock.data.formats import BadRecord, Block
from penstock.data.keys import rows_of
from penstock.data.preparation.bad import SCHEMA, Tally, why
from penstock.data.preparation.places import Locate, told
from penstock.data.preparation.settled import table_of
from penstock.data.preparation.tables import column_of

Row = dict[str, Any]
Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Ready:
    """A step as it runs. Takes what `run` gives."""

    kind: str
    name: str
    function: Callable[..., Any]
    params: Mapping[str, Any]

    def call(self, given: Any) -> Any:
        return self.function(given, **self.params)


class Flow:
    """A block of rows between two steps: a table, or rows; asked for the other it is made.

    records  of which record of the unit each row was made: int32 [rows], as `places.py` has them
    locate   where a record stands
    later    makes the table of the rows, where the reader knows its types
    """

    def __init__(
        self,
        records: Numbers,
        locate: Locate,
        *,
        table: pa.Table | None = None,
        rows: list[Row] | None = None,
        later: Callable[[], pa.Table] | None = None,
    ) -> None:
        self.records, self.locate = records, locate
        self._table, self._rows, self._later = table, rows, later

    def place(self, row: int) -> str:
        return told(self.locate, int(self.records[row]))

    def __len__(self) -> int:
        return len(self._rows) if self._rows is not None else int(self.as_table().num_rows)

    @property
    def table(self) -> pa.Table | None:
        """None for rows whose types nobody knows yet."""
        return self._table if self._later is None else self.as_table()

    def rows(self) -> list[Row]:
        if self._rows is None:
            self._rows = list(rows_of(self._table, self._columns()))
        return self._rows

    def as_table(self) -> pa.Table:
        """Raises BadInput for rows that no dataset can hold."""
        if self._table is None:
            self._table = self._later() if self._later else table_of(self._rows)
        return self._table

    def columns(self) -> dict[str, Any]:
        """As in a batch: arrays [B, …], lists for the rest."""
        table = self.as_table()
        return dict(to_numpy(table, self._columns()))

    def part(self, start: int, stop: int) -> Flow:
        return Flow(
            self.records[start:stop],
            self.locate,
            table=None if self.table is None else self.table.slice(start, stop - start),
            rows=None if self._rows is None else self._rows[start:stop],
        )

    def only(self, rows: list[int]) -> Flow:
        """These rows."""
        if len(rows) == len(self):
            return self
        return Flow(
            self.records[rows],
            self.locate,
            table=None if self.table is None else self.table.take(pa.array(rows, pa.int64())),
            rows=None if self._rows is None else [self._rows[row] for row in rows],
        )

    def made(self, rows: list[Row], came: list[int]) -> Flow:
        """Rows made of these ones, each of one of them."""
        return Flow(self.records[came], self.locate, rows=rows)

    def _columns(self) -> list[Column]:
        return [column_of(each) for each in self.as_table().schema]


def flows(blocks: Iterable[Block | BadRecord], tally: Tally, first: int = 0) -> Iterator[Flow]:
    """What a source reads; bad records go to the tally. first: number of the first record."""
    for each in blocks:
        if isinstance(each, BadRecord):
            tally.unreadable(each)
            continue
        end = first + len(each)
        tally.records += len(each)
        yield Flow(
            np.arange(first, end, dtype=np.int32),
            lambda record, first=first, place=each.place: place(record - first),  # type: ignore[misc]
            table=each.table if each.rows is None else None,
            rows=each.rows,
            later=None if each.rows is None else lambda each=each: each.table,  # type: ignore[misc]
        )
        first = end


def run(step: Ready, given: Iterable[Flow], tally: Tally) -> Iterator[Flow]:
    """One step over all blocks."""
    work = {"map": _map, "filter": _filter, "flat_map": _flat_map, "batch": _batch}[step.kind]
    for flow in given:
        if len(flow):
            yield from (made for made in work(step, flow, tally) if len(made))


def run_all(steps: Iterable[Ready], given: Iterable[Flow], tally: Tally) -> Iterator[Flow]:
    """Steps one after the other, each block through all of them before the next."""
    found: Iterable[Flow] = given
    for step in steps:
        found = run(step, found, tally)
    yield from found


def _each(step: Ready, flow: Flow, tally: Tally) -> Iterator[tuple[int, Any]]:
    for number, row in enumerate(flow.rows()):
        try:
            found = step.call(dict(row))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the record's
            tally.raised(flow.place(number), step.name, error, row)
            continue
        yield number, found


def _map(step: Ready, flow: Flow, tally: Tally) -> list[Flow]:
    made, came = [], []
    for number, found in _each(step, flow, tally):
        if _is_row(found, step, flow, number, tally):
            made.append(found)
            came.append(number)
    return [flow.made(made, came)]


def _filter(step: Ready, flow: Flow, tally: Tally) -> list[Flow]:
    return [flow.only([number for number, stays in _each(step, flow, tally) if stays])]


def _flat_map(step: Ready, flow: Flow, tally: Tally) -> list[Flow]:
    made: list[Row] = []
    came: list[int] = []
    for number, row in enumerate(flow.rows()):
        try:
            found = list(step.call(dict(row)))  # a generator raises here
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the record's
            tally.raised(flow.place(number), step.name, error, row)
            continue
        if all(_is_row(each, step, flow, number, tally) for each in found):
            made += found
            came += [number] * len(found)
    return [flow.made(made, came)]


def _is_row(found: Any, step: Ready, flow: Flow, number: int, tally: Tally) -> bool:
    """Whether a step gave a row; else its record is bad."""
    if isinstance(found, Mapping):
        return True
    function = step.name.partition(" ")[2]
    told = f"{function} gave {type(found).__name__}, not a row (a dict)"
    tally.unfit(flow.place(number), SCHEMA, told, flow.rows()[number])
    return False


def _batch(step: Ready, flow: Flow, tally: Tally) -> list[Flow]:
    """All rows at once. Where that raises, the bad ones are searched by halves."""
    try:
        columns = flow.columns()
    except BadInput as error:
        return _halves(step, flow, tally, error, fits=False)
    try:
        given = step.call(columns)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the record's
        return _halves(step, flow, tally, error)
    try:
        table = table_of(given) if _some(given) else None
    except BadInput as error:
        return _halves(step, flow, tally, error, fits=False)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the record's
        return _halves(step, flow, tally, error)
    if table is None:
        return []
    rows = table.num_rows
    same = rows == len(flow)
    records = flow.records if same else np.full(rows, _about(flow), np.int32)
    return [Flow(records, flow.locate, table=table)]


def _some(given: Any) -> bool:
    """Whether there are rows; no rows are allowed here."""
    if isinstance(given, Mapping):
        return any(len(values) for values in given.values())
    return len(given) > 0 if hasattr(given, "__len__") else given is not None


def _about(flow: Flow) -> int:
    """All that is known of the rows of a batch that gave another number of them."""
    first = int(flow.records[0])
    return ~first if first >= 0 and len(flow) > 1 else first


def _halves(
    step: Ready, flow: Flow, tally: Tally, error: Exception, fits: bool = True
) -> list[Flow]:
    """fits: whether the step raised; else what it got, or gave, cannot be kept."""
    one = len(flow) == 1
    if one or tally.policy == "fail":
        where = flow.place(0) if one else f"{flow.place(0)} to {flow.place(len(flow) - 1)}"
        row = flow.rows()[0] if one else None
        if fits:
            tally.raised(where, step.name, error, row)
        else:
            tally.unfit(where, SCHEMA, f"{step.name}: {why(error)}", row)
        return []
    middle = len(flow) // 2
    parts = (flow.part(0, middle), flow.part(middle, len(flow)))
    return [made for part in parts for made in _batch(step, part, tally)]
