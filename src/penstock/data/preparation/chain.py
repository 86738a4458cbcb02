"""Steps over the rows of a unit: one after the other, streamed, a bad record never stops the rest.

Rows flow in blocks, as an Arrow table or as dictionaries, whatever the step before gave; `place`
says of each row where its record stands in the raw data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.data.columns import Column, to_numpy
from penstock.data.formats import BadRecord, Block
from penstock.data.keys import rows_of
from penstock.data.preparation.bad import Tally
from penstock.data.preparation.tables import column_of
from penstock.data.rows import Blocks

Place = Callable[[int], str]
Row = dict[str, Any]


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

    later  makes the table of the rows, where the reader knows its types
    """

    def __init__(
        self,
        place: Place,
        *,
        table: pa.Table | None = None,
        rows: list[Row] | None = None,
        later: Callable[[], pa.Table] | None = None,
    ) -> None:
        self.place = place
        self._table, self._rows, self._later = table, rows, later

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
            known = self._later
            self._table = known() if known else pa.concat_tables(list(Blocks(self._rows)))
        return self._table

    def columns(self) -> dict[str, Any]:
        """As in a batch: arrays [B, …], lists for the rest."""
        table = self.as_table()
        return dict(to_numpy(table, self._columns()))

    def part(self, start: int, stop: int) -> Flow:
        place = self.place
        return Flow(
            lambda row: place(start + row),
            table=None if self.table is None else self.table.slice(start, stop - start),
            rows=None if self._rows is None else self._rows[start:stop],
        )

    def only(self, rows: list[int]) -> Flow:
        """These rows."""
        if len(rows) == len(self):
            return self
        place = self.place
        return Flow(
            lambda row: place(rows[row]),
            table=None if self.table is None else self.table.take(pa.array(rows, pa.int64())),
            rows=None if self._rows is None else [self._rows[row] for row in rows],
        )

    def _columns(self) -> list[Column]:
        return [column_of(each) for each in self.as_table().schema]


def flows(blocks: Iterable[Block | BadRecord], tally: Tally) -> Iterator[Flow]:
    """What a source reads; bad records go to the tally."""
    for each in blocks:
        if isinstance(each, BadRecord):
            tally.unreadable(each)
        else:
            tally.records += len(each)
            if each.rows is None:
                yield Flow(each.place, table=each.table)
            else:
                yield Flow(each.place, rows=each.rows, later=lambda each=each: each.table)  # type: ignore[misc]


def run(step: Ready, given: Iterable[Flow], tally: Tally) -> Iterator[Flow]:
    """One step over all blocks."""
    work = {"map": _map, "filter": _filter, "flat_map": _flat_map, "batch": _batch}[step.kind]
    for flow in given:
        if len(flow):
            made = work(step, flow, tally)
            if len(made):
                yield made


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


def _map(step: Ready, flow: Flow, tally: Tally) -> Flow:
    made, came = [], []
    for number, found in _each(step, flow, tally):
        made.append(found)
        came.append(number)
    place = flow.place
    _check_rows(made, step, place, came)
    return Flow(lambda row: place(came[row]), rows=made)


def _filter(step: Ready, flow: Flow, tally: Tally) -> Flow:
    return flow.only([number for number, stays in _each(step, flow, tally) if stays])


def _flat_map(step: Ready, flow: Flow, tally: Tally) -> Flow:
    made: list[Row] = []
    came: list[int] = []
    rows = flow.rows()
    for number, row in enumerate(rows):
        try:
            found = list(step.call(dict(row)))  # a generator raises here
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the record's
            tally.raised(flow.place(number), step.name, error, row)
            continue
        made += found
        came += [number] * len(found)
    place = flow.place
    _check_rows(made, step, place, came)
    return Flow(lambda row: place(came[row]), rows=made)


def _check_rows(rows: list[Any], step: Ready, place: Place, came: list[int]) -> None:
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            where = place(came[number])
            raise BadInput(
                f"{step.name.partition(' ')[2]} gave {type(row).__name__} for {where}, not a row",
                "A map returns a dict for each row; leave rows out with filter=, make several "
                "with flat_map=.",
                place=where,
            )


def _batch(step: Ready, flow: Flow, tally: Tally) -> Flow:
    """All rows at once. Where that raises, the bad ones are searched by halves."""
    try:
        given = step.call(flow.columns())
        table = pa.concat_tables(list(Blocks(given))) if _some(given) else None
    except BadInput:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the record's
        return _halves(step, flow, tally, error)
    rows = 0 if table is None else table.num_rows
    place = flow.place if rows == len(flow) else _somewhere(flow)
    return Flow(place, table=table, rows=None if table is not None else [])


def _some(given: Any) -> bool:
    """Whether there are rows; no rows are allowed here."""
    if isinstance(given, Mapping):
        return any(len(values) for values in given.values())
    return len(given) > 0 if hasattr(given, "__len__") else given is not None


def _halves(step: Ready, flow: Flow, tally: Tally, error: Exception) -> Flow:
    if len(flow) == 1 or tally.policy == "fail":
        where = flow.place(0) if len(flow) == 1 else _somewhere(flow)(0)
        tally.raised(where, step.name, error, flow.rows()[0] if len(flow) == 1 else None)
        return Flow(flow.place, rows=[])
    middle = len(flow) // 2
    parts = (flow.part(0, middle), flow.part(middle, len(flow)))
    made = [each for each in (_batch(step, part, tally) for part in parts) if len(each)]
    if not made:
        return Flow(flow.place, rows=[])
    ends = np.cumsum([len(each) for each in made])

    def place(row: int) -> str:
        part = int(np.searchsorted(ends, row, side="right"))
        return made[part].place(row - int(ends[part]) + len(made[part]))

    return Flow(place, table=pa.concat_tables([each.as_table() for each in made]))


def _somewhere(flow: Flow) -> Place:
    first, last = flow.place, len(flow) - 1
    return lambda _row: f"{first(0)} to {first(last)}"
