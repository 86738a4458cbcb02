"""The steps over all rows, as an order of row numbers per split; see `whole.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.data.columns import Column, canonical, column_of_field
from penstock.data.formats import BadRecord
from penstock.data.preparation import shelf, whole
from penstock.data.preparation.assembly import Laid, Pile, in_order, piles
from penstock.data.preparation.bad import Tally
from penstock.data.preparation.keyruns import groups
from penstock.data.preparation.planning import Listed
from penstock.data.preparation.tables import put_table
from penstock.data.preparation.whole import Join, Whole, check_columns

if TYPE_CHECKING:
    from penstock.blobs import Blobs
    from penstock.jobs.stores import Stores

_PART_BYTES = 16 << 20

Rows = npt.NDArray[np.int64]


@dataclass
class Ordered:
    """What all rows became.

    numbers  split -> rows in their order; None where they lie as the units have them
    joined   split -> numbers of what is joined to each row, -1 for nothing
    right    for `shelf.shard`: units of what is joined, and our names -> theirs
    """

    columns: list[Column]
    numbers: dict[str, Rows] | None = None
    joined: dict[str, Rows] | None = None
    right: dict[str, Any] | None = None

    def kept(self, rows: int) -> npt.NDArray[np.bool_] | None:
        """Which rows are there; None for all."""
        if self.numbers is None:
            return None
        kept = np.zeros(rows, bool)
        for numbers in self.numbers.values():
            kept[numbers] = True
        return kept

    def without(self, laid: Laid, aside: Mapping[str, Rows]) -> Ordered:
        """The same without some places of each split."""
        numbers = dict(self.numbers or as_they_lie(laid))
        joined = None if self.joined is None else dict(self.joined)
        for name, places in aside.items():
            stays = np.ones(len(numbers[name]), bool)
            stays[places] = False
            numbers[name] = numbers[name][stays]
            if joined is not None:
                joined[name] = joined[name][stays]
        return replace(self, numbers=numbers, joined=joined)

    def piles(self, blobs: Blobs, laid: Laid) -> list[Pile]:
        """The splits in their order; indices go to blobs. Raises what `put` raises."""
        if self.numbers is None:
            return piles(laid)
        return [
            Pile(
                name,
                len(numbers),
                [],
                blobs.put(numbers.astype("<i8").tobytes()),
                "" if self.joined is None else blobs.put(self.joined[name].astype("<i8").tobytes()),
            )
            for name, numbers in self.numbers.items()
        ]


def as_they_lie(laid: Laid) -> dict[str, Rows]:
    """split -> numbers of its rows."""
    found = {}
    for name, slices in laid.splits.items():
        parts = [
            np.arange(laid.units[unit][1] + first, laid.units[unit][1] + end, dtype=np.int64)
            for unit, first, end in slices
        ]
        found[name] = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    return found


def ordered(
    stores: Stores,
    asked: Whole,
    laid: Laid,
    columns: Sequence[Column],
    theirs: Listed | None,
    tally: Tally,
) -> Ordered:
    """Carry out what was asked over all rows; bad records of what is joined go to the tally. Hold a
    pin.

    Raises BadInput (columns that are not there, several matches), MissingExtra.
    """
    made = Ordered(list(columns))
    if not asked.any:
        return made
    numbers = as_they_lie(laid)
    if asked.dedupe:
        gone = _repeated(stores, laid, "run" if asked.dedupe == "key" else "same")
        numbers = {name: each[~gone[each]] for name, each in numbers.items()}
    made.numbers = numbers
    if asked.join is not None and theirs is not None:
        _join(stores, asked.join, laid, theirs, made, tally)
    if asked.sort:
        _sort(stores, asked.sort, laid, columns, made)
    if asked.shuffle is not None:
        for name in numbers:
            _take(made, name, whole.shuffled(len(made.numbers[name]), asked.shuffle, name))
    return made


def _take(made: Ordered, name: str, places: Rows) -> None:
    assert made.numbers is not None
    made.numbers[name] = made.numbers[name][places]
    if made.joined is not None:
        made.joined[name] = made.joined[name][places]


def _repeated(stores: Stores, laid: Laid, which: str) -> npt.NDArray[np.bool_]:
    """Which rows an earlier one equals."""
    gone = np.zeros(laid.rows, bool)
    for found in groups(laid.runs(stores, which), laid.rows):
        for numbers in found:
            gone[in_order(stores, laid, numbers)[1:]] = True
    return gone


def _parts(
    stores: Stores, laid: Laid, numbers: Rows, columns: Sequence[Column]
) -> Iterator[tuple[pa.Table, Rows]]:
    """Some columns of some rows, a unit or more at a time, with places in `numbers`."""
    step = 1 << 18
    for start in range(0, len(numbers), step):
        table = shelf.taken(stores.blobs, laid.units, numbers[start : start + step], columns)
        yield table, np.arange(start, start + table.num_rows, dtype=np.int64)


def _sort(
    stores: Stores, names: Sequence[str], laid: Laid, columns: Sequence[Column], made: Ordered
) -> None:
    plain = [name.removeprefix("-") for name in names]
    known = {each.name: each for each in columns}
    check_columns(plain, {name: each.kind for name, each in known.items()}, "sort")
    chosen = [known[name] for name in plain]
    down = [name.startswith("-") for name in names]
    assert made.numbers is not None
    for name, numbers in made.numbers.items():
        if len(numbers):
            parts = _parts(stores, laid, numbers, chosen)
            _take(made, name, whole.sorted_rows(parts, down, stores.layout.tmp))


# joining


def _join(
    stores: Stores, join: Join, laid: Laid, theirs: Listed, made: Ordered, tally: Tally
) -> None:
    units, other = _read(stores, theirs, tally)
    pairs = join.pairs
    ours = {each.name: each for each in made.columns}
    named = {each.name: each for each in other}
    check_columns(pairs, {name: each.kind for name, each in ours.items()}, "join")
    check_columns(
        pairs.values(), {name: each.kind for name, each in named.items()}, "join (the other side)"
    )
    taken = set(ours)
    names: dict[str, str] = {}
    added: list[Column] = []
    for each in other:
        if each.name in pairs.values():
            continue
        name = each.name if each.name not in taken else each.name + join.suffix
        taken.add(name)
        names[name] = each.name
        added.append(replace(each, name=name))
    rows = sum(size for _, _, size in units)
    places = [[blob, start] for blob, start, _ in units]
    left = [ours[name] for name in pairs]
    right = [named[name] for name in pairs.values()]
    made.joined = {}
    assert made.numbers is not None
    for name, numbers in made.numbers.items():
        found = (
            (shelf.taken(stores.blobs, places, np.arange(start, start + size), right),
             np.arange(start, start + size, dtype=np.int64))
            for _, start, size in units
        )  # fmt: skip
        if not len(numbers) or not rows:
            keep = np.arange(len(numbers) if join.how == "left" else 0)
            match = np.full(len(keep), -1, np.int64)
        else:
            keep, match, twice = whole.joined_rows(
                _parts(stores, laid, numbers, left), found, len(left), join.how, stores.layout.tmp
            )
            if twice:
                raise BadInput(
                    f"several rows of {theirs.opened.label} match one of ours: "
                    + ", ".join(", ".join(map(str, each)) for each in twice),
                    "A join adds the columns of one row; dedupe the other side, or join ours to it",
                    values=[[str(value) for value in each] for each in twice],
                )
        made.numbers[name] = numbers[keep]
        made.joined[name] = match
    made.columns = [*made.columns, *added]
    made.right = {"units": places, "names": names}


def _read(
    stores: Stores, theirs: Listed, tally: Tally
) -> tuple[list[tuple[str, int, int]], list[Column]]:
    """The other side as blobs: (digest, number of the first row, rows) of each, and its columns."""
    units: list[tuple[str, int, int]] = []
    columns: list[Column] | None = None
    waiting: list[pa.Table] = []
    start = 0

    def flush() -> None:
        nonlocal waiting, start
        table = pa.concat_tables(waiting)
        units.append((put_table(stores.blobs, table), start, table.num_rows))
        start += table.num_rows
        waiting = []

    inputs = [each for unit in theirs.units for each in unit]
    source = theirs.opened.source
    for block in source.read_all(inputs) if tally.policy == "fail" else source.read_on(inputs):
        if isinstance(block, BadRecord):
            tally.unreadable(block)
            continue
        tally.records += len(block)
        if columns is None:
            columns = [column_of_field(each) for each in block.table.schema]
        waiting.append(canonical(block.table, columns))
        if sum(each.nbytes for each in waiting) >= _PART_BYTES:
            flush()
    if waiting:
        flush()
    return units, columns or []
