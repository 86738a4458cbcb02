"""The rows that the steps gave, as one table: those that do not fit the others are set apart.

Rows become tables some thousand at a time. What makes no table is halved until single rows are
left: one that makes none is no row of any dataset. The tables are compared with the columns of the
whole: where they disagree, with those that most rows have (`voting.py`), or with those that a vote
over all units gave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.data.columns import Column, arrow_type, canonical
from penstock.data.keys import rows_of
from penstock.data.preparation.bad import SCHEMA, Tally, why
from penstock.data.preparation.chain import Flow, Numbers
from penstock.data.preparation.places import Places
from penstock.data.preparation.settled import table_of
from penstock.data.preparation.tables import column_of, told_column
from penstock.data.preparation.voting import Ballot, counted, elected, kind_of
from penstock.data.types import Types

_ROWS = 4096  # that become a table at once
_BYTES = 16 << 20
_SHOWN = 50  # differences that an error tells

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Fitted:
    """table, records  the rows that fit, in their order, and of which records they were made
    ballots        how all rows voted; None where they were of one mind
    """

    table: pa.Table | None
    records: Numbers
    ballots: list[Ballot] | None


@dataclass(frozen=True)
class Misfit:
    """A row that is left out. record as in `places.py`."""

    record: int
    reason: str
    row: Any


class NoAnswer(Exception):
    """Inside this room only: what the user's function raised, asked by `by_halves`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


Piece = tuple[pa.Table, Numbers]


def fitted(
    flows: Iterable[Flow],
    types: Types,
    tally: Tally,
    places: Places,
    wanted: Sequence[Column] | None = None,
) -> Fitted:
    """The rows in the columns of the whole; `wanted` where all units told them.

    Raises BadInput in mode "fail" that lists how rows differ, with their places.
    """
    misfits: list[Misfit] = []
    pieces = list(pieces_of(flows, types, misfits, tally, places))
    return fit_tables(pieces, misfits, tally, places, wanted)


def fit_tables(
    pieces: list[Piece],
    misfits: list[Misfit],
    tally: Tally,
    places: Places,
    wanted: Sequence[Column] | None,
) -> Fitted:
    """`fitted` for tables; the misfits go to the tally."""
    found = counted(Ballot.of(table) for table, _ in pieces)
    columns = list(wanted) if wanted is not None else elected(found) if found else []
    agreed = not misfits
    kinds = _gap_kinds(pieces, columns)
    tables, records = [], []
    for table, numbers in pieces:
        stays = _judged(table, numbers, columns, misfits)
        if stays is not None:
            agreed = False
            table, numbers = table.take(pa.array(stays)), numbers[stays]
        if len(numbers):
            tables.append(_as(table, columns, kinds))
            records.append(numbers)
    tell(misfits, tally, places)
    if not tables:
        return Fitted(None, np.zeros(0, np.int32), None if agreed else found)
    whole = pa.concat_tables(tables)
    return Fitted(whole, np.concatenate(records), None if agreed else found)


def tell(misfits: Sequence[Misfit], tally: Tally, places: Places) -> None:
    """Misfits are bad records. Raises BadInput in mode "fail" that lists how they differ."""
    if misfits and tally.policy == "fail":
        raise _refused(misfits, places)
    where = places.of(each.record for each in misfits)
    for each, place in zip(misfits, where, strict=True):
        tally.unfit(place, SCHEMA, each.reason, each.row)


def _refused(misfits: Sequence[Misfit], places: Places) -> BadInput:
    """One error for all that differs: each difference with its first record."""
    found: dict[str, list[int]] = {}
    for each in misfits:
        found.setdefault(each.reason, []).append(each.record)
    shown = list(found)[:_SHOWN]
    where = places.of(found[reason][0] for reason in shown)
    told = [
        f"{reason} ({place}{f' and {len(found[reason]) - 1} more' if found[reason][1:] else ''})"
        for reason, place in zip(shown, where, strict=True)
    ]
    return BadInput(
        "the rows do not have one schema, or do not fit their types:\n  " + "\n  ".join(told),
        "Make every row alike in the steps: the same columns, dtypes and shapes. "
        'Or leave such records out: bad="skip", or "quarantine".',
        differences=told,
        place=where[0],
    )


def alike(pieces: Sequence[Piece]) -> Piece | None:
    """The pieces as one; None where a row does not fit the others, or there is none."""
    if not pieces:
        return None
    columns = elected(counted(Ballot.of(table) for table, _ in pieces))
    if any(_differences(table, columns) for table, _ in pieces):
        return None
    kinds = _gap_kinds(pieces, columns)
    whole = pa.concat_tables([_as(table, columns, kinds) for table, _ in pieces])
    return whole, np.concatenate([records for _, records in pieces])


# rows into tables


def pieces_of(
    flows: Iterable[Flow], types: Types, misfits: list[Misfit], tally: Tally, places: Places
) -> Iterator[Piece]:
    """Tables of rows that are alike, in order; single rows that make none are misfits."""
    for flow in _gathered(flows):

        def ask(first: int, end: int, flow: Flow = flow) -> Piece:
            part = flow.part(first, end)
            given = part.table if part.table is not None else part.rows()
            return table_of(given, types), part.records

        def refuse(row: int, error: Exception, flow: Flow = flow) -> None:
            one = flow.part(row, row + 1)
            misfits.append(Misfit(int(one.records[0]), why(error), one.rows()[0]))

        try:
            yield ask(0, len(flow))
        except BadInput as error:
            if not _of_columns(error, flow):
                yield from by_halves(len(flow), ask, refuse)
            elif tally.policy == "fail":
                where = places.of([int(flow.records[0])])[0]
                raise BadInput(f"{where}: {error.what}", error.fix, **error.facts) from None
            else:
                for row in range(len(flow)):
                    refuse(row, error)


def _of_columns(error: BadInput, flow: Flow) -> bool:
    """Whether an error is about the types of a table, which all its rows share."""
    about_rows = {"differences", "rows"} & error.facts.keys() or "missing values" in error.what
    return flow.table is not None and not about_rows


def by_halves(
    rows: int, ask: Callable[[int, int], Answer], refuse: Callable[[int, Exception], None]
) -> list[Answer]:
    """Answers for runs of rows (first, end), in order: the longest that halving finds. A single
    row without an answer is refused."""

    def search(first: int, end: int) -> list[Answer]:
        try:
            return [ask(first, end)]
        except (BadInput, NoAnswer) as error:
            if end - first == 1:
                refuse(first, error)
                return []
        middle = (first + end) // 2
        return search(first, middle) + search(middle, end)

    return search(0, rows) if rows else []


def _gathered(flows: Iterable[Flow]) -> Iterator[Flow]:
    """Neighbours together, where they are small."""
    waiting: list[Flow] = []
    rows = size = 0
    for flow in flows:
        if not len(flow):
            continue
        more = _bytes(flow)
        if waiting and (
            rows + len(flow) > _ROWS or size + more > _BYTES or not _alike(waiting[0], flow)
        ):
            yield _together(waiting)
            waiting, rows, size = [], 0, 0
        waiting.append(flow)
        rows, size = rows + len(flow), size + more
    if waiting:
        yield _together(waiting)


def _alike(one: Flow, other: Flow) -> bool:
    if one.table is None or other.table is None:
        return one.table is other.table
    return bool(one.table.schema.equals(other.table.schema, check_metadata=True))


def _together(flows: list[Flow]) -> Flow:
    if len(flows) == 1:
        return flows[0]
    records = np.concatenate([each.records for each in flows])
    if flows[0].table is not None:
        return Flow(records, str, table=pa.concat_tables([each.table for each in flows]))
    return Flow(records, str, rows=[row for each in flows for row in each.rows()])


def _bytes(flow: Flow) -> int:
    """Roughly: of a flow of rows those of its first one stand for all."""
    if flow.table is not None:
        return int(flow.table.nbytes)
    values = flow.rows()[0].values()
    return len(flow) * sum(
        getattr(each, "nbytes", 0) or (len(each) if isinstance(each, str | bytes | list) else 8)
        for each in values
    )


# tables into the columns of the whole


def _judged(
    table: pa.Table, records: Numbers, wanted: Sequence[Column], misfits: list[Misfit]
) -> Any:
    """Which rows fit, None where all do; the others are added to the misfits."""
    found = _differences(table, wanted)
    if not found:
        return None
    bad = np.zeros(table.num_rows, bool)
    for rows in found.values():
        bad |= rows
    numbers = np.flatnonzero(bad)
    columns = [column_of(each) for each in table.schema]
    given = rows_of(table.take(pa.array(numbers)), columns)
    for row, values in zip(numbers.tolist(), given, strict=True):
        reason = "; ".join(text for text, rows in found.items() if rows[row])
        misfits.append(Misfit(int(records[row]), reason, values))
    return np.flatnonzero(~bad)


def _differences(table: pa.Table, wanted: Sequence[Column]) -> Any:
    """What is wrong -> with which rows: bool [rows]."""
    ours = {field.name: told_column(field) for field in table.schema}
    whole = np.ones(table.num_rows, bool)
    found = {f'"{each.name}" is not there': whole for each in wanted if each.name not in ours}
    names = {each.name for each in wanted}
    found |= {f'"{name}" is there, but not in other rows': whole for name in ours.keys() - names}
    for each in wanted:
        column = ours.get(each.name)
        if column is None or not each.known:
            continue
        values = table[each.name]
        there = None if not values.null_count else values.is_valid().to_numpy()
        if each.kind == "tensor" and there is not None:
            found[f'"{each.name}" is missing, which a tensor cannot be'] = ~there
        if not _holds(each, column):
            found[f'"{each.name}" is {column}, not {each}'] = whole if there is None else there
    return {text: rows for text, rows in sorted(found.items()) if rows.any()}


def _holds(wanted: Column, column: Column) -> bool:
    """Whether the values of one column become those of another; nothing stands for a gap."""
    if wanted.storage == column.storage or column.kind == "gap":
        return True
    if column.kind == "list" and not column.known:
        return wanted.kind == "list"
    return wanted.kind == "list" and kind_of(wanted) == kind_of(column)


def _gap_kinds(pieces: Sequence[Piece], columns: Sequence[Column]) -> dict[str, pa.DataType]:
    """What the columns without a type are kept as until other units tell it."""
    found = {}
    for each in columns:
        if not each.known:
            kinds = {
                t.schema.field(each.name).type for t, _ in pieces if each.name in t.schema.names
            }
            found[each.name] = next((k for k in kinds if not pa.types.is_null(k)), pa.null())
    return found


def _as(table: pa.Table, columns: Sequence[Column], kinds: Mapping[str, pa.DataType]) -> pa.Table:
    """The rows of a table that fits, in the columns of the whole."""
    arrays, fields = [], []
    for each in columns:
        values = table[each.name]
        kind = arrow_type(each) if each.known else kinds[each.name]
        if values.null_count == len(values) and values.type != kind:
            values = pa.chunked_array([pa.nulls(len(values), kind)])
        if each.known:
            kept = canonical(pa.table({each.name: values}), [each])
            fields.append(kept.schema.field(0))
            values = kept.column(0)
        else:
            fields.append(pa.field(each.name, kind))
        arrays.append(values)
    return pa.table(arrays, schema=pa.schema(fields))
