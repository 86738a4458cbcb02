"""Small inputs that share a unit: what each of them gave, so that one that stayed need not run
when a neighbour changed.

Records are counted as the inputs are read, so the rows of an input are those whose record numbers
are its own, and its bad records of a stage (`stages.py`) stand together. What was made across
inputs (a batch of many small files, rows that did not fit the others, rows without a key) is
nobody's: such a unit runs as a whole. So does one whose columns, with what is taken from before,
might be others than if all had run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.blobs import Blobs
from penstock.data.columns import Column
from penstock.data.formats import Input, InputSource
from penstock.data.keys import KEY
from penstock.data.preparation import chain, stability
from penstock.data.preparation.bad import Bad, Tally, of_rows
from penstock.data.preparation.chain import Flow, Ready
from penstock.data.preparation.finishing import ROW, Work, data_of
from penstock.data.preparation.fitting import Misfit, Piece, pieces_of
from penstock.data.preparation.kept import Kept, Share, plain
from penstock.data.preparation.places import RECORD, Places
from penstock.data.preparation.schema import joined
from penstock.data.preparation.tables import read_facts, read_table, told_column
from penstock.data.preparation.voting import Ballot, counted, elected
from penstock.data.types import Types, mark_key


@dataclass(frozen=True, slots=True)
class Stage:
    """types: of the columns of its rows; given: what it begins with, None where it reads the
    inputs."""

    steps: Sequence[Ready]
    types: Types
    given: Kept | None


@dataclass(frozen=True, slots=True)
class Known:
    """An input's share of an earlier unit. first, first_bad: what stands before it there."""

    result: Mapping[str, Any]
    first: int
    first_bad: int
    share: Share


def possible(steps: Sequence[Ready], source: InputSource, inputs: Sequence[Input]) -> bool:
    """Whether the rows of each input are its own."""
    batched = any(each.kind == "batch" for each in steps)
    return len(inputs) > 1 and not (batched and source.input_is_record)


def known_of(had: Mapping[str, Any]) -> list[Known | None]:
    """What the payload says of each input at a stage; see `neighbours.py`."""
    return [
        each and Known(had["units"][each[0]], each[1], each[2], Share(*each[3:]))
        for each in had["inputs"]
    ]


class Shared:
    """The inputs of a unit in one stage, one after the other: run, or taken from before."""

    def __init__(
        self,
        blobs: Blobs,
        work: Work,
        inputs: Sequence[Input],
        tally: Tally,
        places: Places,
        stage: Stage,
    ) -> None:
        self._blobs, self._work, self._inputs, self._stage = blobs, work, inputs, stage
        self.tally, self._places = tally, places
        self._some = False  # whether the inputs that ran last had a row
        self._facts: dict[str, list[Bad]] = {}
        self._tables: dict[str, pa.Table] = {}
        self.shares: list[Share] = []
        self.unstable: list[str] = []
        self.misfits: list[Misfit] = []

    def pieces(self, known: Sequence[Known | None], sampled: bool) -> list[Piece] | None:
        """All rows in order. None: the inputs that ran do not tell that with those of before they
        have the same columns as if all had run."""
        new: list[Piece] = []
        old: list[Piece] = []
        whole: list[Piece] = []
        for taken, group in groupby(self._flows(known, sampled), key=_is_piece):
            into = old if taken else new
            mark = len(into)
            into += self._made(taken, group)
            whole += into[mark:]
        key = self._work.key if isinstance(self._work.key, str) else KEY
        if old and (self.misfits or not self._leads(whole[0], known) or not _same(old, new, key)):
            return None
        return whole

    def _made(self, taken: bool, found: Iterator[Any]) -> Iterable[Piece]:
        if taken:
            return found
        return pieces_of(found, self._stage.types, self.misfits, self.tally, self._places)

    def _flows(self, known: Sequence[Known | None], sampled: bool) -> Iterator[Flow | Piece]:
        first = 0
        together = self._work.source.input_is_record and self._stage.given is None
        for group in _groups(known, together):
            before = known[group[0]]
            if before is not None:
                piece = self._taken(before, first)
                if piece is not None:
                    yield piece
            else:
                yield from self._run(group, first, sampled)
                sampled = sampled and not self._some
            first += sum(each.records for each in self.shares[-len(group) :])

    def _run(self, group: Sequence[int], first: int, sampled: bool) -> Iterator[Flow]:
        """Some neighbours through the steps."""
        steps, tally, given = self._stage.steps, self.tally, self._stage.given
        read, bad = tally.records, len(tally.found)
        seen = _Count()
        flows = seen.counted(self._begin(group, first))
        if sampled and steps:
            flows = stability.watched(steps, flows, self.unstable)
        yield from chain.run_all(steps, flows, tally)
        self._some = seen.rows > 0
        more = len(tally.found) - bad
        if given is not None:
            self.shares.append(given.shares[group[0]]._replace(bad=more))
        elif len(group) == 1:
            self.shares.append(Share(seen.rows, tally.records - read, more))
        else:
            self.shares += _one_each([self._inputs[n] for n in group], tally, bad)

    def _begin(self, group: Sequence[int], first: int) -> Iterator[Flow]:
        given, source = self._stage.given, self._work.source
        if given is not None:
            return given.of_input(group[0], first, self._places)
        read = source.read_all if self._work.bad == "fail" else source.read_on
        return chain.flows(read([self._inputs[n] for n in group]), self.tally, first)

    def _taken(self, known: Known, first: int) -> Piece | None:
        """An input's rows and bad records of before."""
        share = known.share
        self.shares.append(share)
        if self._stage.given is None:
            self.tally.records += share.read
        if share.bad:
            found = self._bad(known.result["facts"])
            self.tally.found += found[known.first_bad : known.first_bad + share.bad]
        if known.result["blob"] is None:
            return None
        table = self._table(known.result)
        numbers = table[RECORD].to_numpy()
        own = plain(numbers)
        low, high = np.searchsorted(own, [known.first, known.first + share.records])
        if low == high:
            return None
        moved = own[low:high] - known.first + first
        rows = data_of(table.slice(low, high - low), known.result)
        return rows, np.where(numbers[low:high] < 0, ~moved, moved).astype(np.int32)

    def _table(self, result: Mapping[str, Any]) -> pa.Table:
        """An earlier unit's rows in the order of its inputs."""
        blob = result["blob"]
        if blob not in self._tables:
            table = read_table(self._blobs, blob)
            if ROW in table.column_names:
                table = table.take(pa.array(np.argsort(table[ROW].to_numpy(), kind="stable")))
            self._tables[blob] = table
        return self._tables[blob]

    def _bad(self, facts: str) -> list[Bad]:
        if facts not in self._facts:
            self._facts[facts] = of_rows(read_facts(self._blobs, facts).to_pylist())
        return self._facts[facts]

    def _leads(self, piece: Piece, known: Sequence[Known | None]) -> bool:
        """Whether the first row says the order of the columns as it did before, or ran."""
        ends = np.cumsum([each.records for each in self.shares])
        before = known[np.searchsorted(ends, plain(piece[1])[0], side="right")]
        if before is None:
            return True
        led = plain(self._table(before.result)[RECORD].to_numpy())[0]
        return bool(before.first <= led < before.first + before.share.records)


class _Count:
    """Counts the rows of flows that pass."""

    def __init__(self) -> None:
        self.rows = 0

    def counted(self, flows: Iterator[Flow]) -> Iterator[Flow]:
        for flow in flows:
            self.rows += len(flow.records)
            yield flow


def _is_piece(each: Flow | Piece) -> bool:
    return isinstance(each, tuple)


def _groups(known: Sequence[Known | None], together: bool) -> Iterator[list[int]]:
    """Numbers of inputs that are treated at once: each alone, or neighbours that run where a
    source fills blocks across them."""
    for runs, numbers in groupby(range(len(known)), key=lambda n: known[n] is None):
        if runs and together:
            yield list(numbers)
        else:
            yield from ([each] for each in numbers)


def _one_each(inputs: Sequence[Input], tally: Tally, mark: int) -> list[Share]:
    """Shares where every input is one record; their bad ones are put in the order of the inputs."""
    numbers = {each.name: number for number, each in enumerate(inputs)}

    def owner(bad: Bad) -> int:  # its name, and the line or byte where that is known
        place = bad.place
        ends = range(len(place), 0, -1)
        return next(numbers[place[:end]] for end in ends if place[:end] in numbers)

    found = sorted(tally.found[mark:], key=owner)
    tally.found[mark:] = found
    bad, records = [0] * len(inputs), [1] * len(inputs)
    for each in found:
        bad[owner(each)] += 1
        records[owner(each)] = int(each.step != "read")
    return [Share(each, 1, count) for each, count in zip(records, bad, strict=True)]


# the columns


def _same(old: Sequence[Piece], new: Sequence[Piece], key: str) -> bool:
    """Whether the columns of earlier rows are those of all rows: each column is what the new rows
    say, or what these rows say without the neighbours that they had."""
    columns, *others = [
        mark_key([told_column(each) for each in table.schema], key) for table, _ in old
    ]
    if any(each != columns for each in others):
        return False
    told = columns
    if new:
        told = mark_key(elected(counted(Ballot.of(table) for table, _ in new)), key)
    if [each.name for each in told] != [each.name for each in columns]:
        return False
    return all(
        (bool(new) and ours == whole)
        or (
            (not new or (whole.kind != "tensor" and joined(whole, ours) == whole))
            and _says(whole, [table[whole.name] for table, _ in old])
        )
        for whole, ours in zip(columns, told, strict=True)
    )


def _says(column: Column, values: Sequence[pa.ChunkedArray]) -> bool:
    """Whether values are of their column's type whatever other rows hold: a gap has none, arrays
    of one length may be a tensor, bytes may all be pictures, and pictures of one format."""
    there = [each.drop_null() for each in values]
    if not column.known or not any(map(len, there)):
        return False
    if column.kind == "list":
        lengths = [pc.unique(pc.list_value_length(each)) for each in there]
        return len(set().union(*(each.to_pylist() for each in lengths))) > 1
    return column.kind != "bytes" or bool(column.options)
