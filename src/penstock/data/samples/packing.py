"""Token packing: documents laid into rows of one length, none of their tokens lost.

A document longer than a row is cut into pieces of the row's length and a rest. Pieces of full
length are rows of their own; the rests are packed by best-fit decreasing: longest first, each into
the fullest row that still has room for it, else into a new one. So a document is cut only when it
must be, unlike where all documents are strung together and cut every L tokens. Packing is done
within windows of documents (rows of the split), so memory is bounded; it follows from the lengths
alone.

In a batch (b rows, L tokens):

    X             [b, L]  column X, `pad_id` where a row is not full
    segment_ids   int32 [b, L]  1, 2, … for the pieces in a row, 0 for padding: attention is for
                                equal ids only, and the loss for ids above 0
    position_ids  int32 [b, L]  0, 1, … within each piece

Source: Ding et al. 2024, Fewer Truncations Improve Language Modeling (arXiv 2404.10830): best-fit
packing, and that its order follows from the lengths alone. Here equal lengths are placed together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.hashing import digest_json
from penstock.base.log import facts, logger
from penstock.data.columns import Array, Column, Values
from penstock.data.order import Rows
from penstock.data.samples import reading
from penstock.data.samples.essence import essence
from penstock.data.samples.index import kept, numbers

if TYPE_CHECKING:
    from penstock.data.source import Source

FORMAT = "penstock-pack-1"
SEGMENTS = "segment_ids"
POSITIONS = "position_ids"
_log = logger("data")


@dataclass(frozen=True, slots=True)
class Pack:
    """Documents packed into rows; see the top of the file.

    length      L, tokens of a row
    columns     columns of lists, equally long in every row of the split
    boundaries  whether segment and position ids are given
    pad_id      what fills a row up
    window      documents that are packed together
    """

    length: int = 1024
    columns: Sequence[str] = ("tokens",)
    boundaries: bool = True
    pad_id: int = 0
    window: int = 1 << 16

    def __post_init__(self) -> None:
        names = (self.columns,) if isinstance(self.columns, str) else tuple(self.columns)
        object.__setattr__(self, "columns", names)
        for name in ("length", "window"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise BadInput(
                    f"a {name} of {value!r} packs nothing", "Give a whole number from 1."
                )
        if not names:
            raise BadInput("no column is packed", 'Name some: columns=("tokens",).')


class PackSource:
    """Packed rows as a source.

    documents  that hold anything; empty ones are in no row
    tokens     of all documents: all of them are in exactly one place
    padding    share of all places that is padding

    Owns the source given to it: `close` closes it.
    """

    def __init__(self, spec: Pack, source: Source, *, folder: Path | None = None) -> None:
        """folder  where the index is kept; None: nowhere. Raises BadInput, NotFound."""
        self._spec = spec
        self._own = source
        wanted = [_list_column(source, name) for name in spec.columns]
        self._source = reading.Picked(source, spec.columns)
        self._dtypes = {each.name: np.dtype(each.dtype) for each in wanted}
        self.columns = _columns(spec, wanted)
        self.identity = digest_json([FORMAT, source.identity, essence(spec)])
        made: list[tuple[pa.Table, pa.Table]] = []

        def make() -> tuple[pa.Table, pa.Table]:
            if not made:
                made.append(_index(spec, source, wanted))
            return made[0]

        rows = kept(folder, [FORMAT, self.identity, "rows"], lambda: make()[0])
        pieces = kept(folder, [FORMAT, self.identity, "pieces"], lambda: make()[1])
        self._first = numbers(rows, "first")
        self._row, self._start, self._size = (
            numbers(pieces, name) for name in ("row", "start", "size")
        )
        self.documents = int((self._start == 0).sum())
        self.tokens = int(self._size.sum())
        self.padding = 1 - self.tokens / (len(self) * spec.length)
        _log.info(
            "documents packed into rows",
            extra=facts(documents=self.documents, rows=len(self), padding=round(self.padding, 4)),
        )

    def __len__(self) -> int:
        return len(self._first) - 1

    def gather(self, rows: Rows) -> dict[str, Values]:
        """Packed rows: see the top of the file."""
        length = self._spec.length
        owner, pieces = self._pieces_of(rows)
        sizes = self._size[pieces]
        documents, which = np.unique(self._row[pieces], return_inverse=True)
        found = self._source.gather(documents)
        used = np.zeros(len(rows), np.int64)
        np.add.at(used, owner, sizes)
        full = np.arange(length) < used[:, None]
        cuts = list(zip(which.tolist(), self._start[pieces].tolist(), sizes.tolist(), strict=True))
        batch: dict[str, Values] = {}
        for name, dtype in self._dtypes.items():
            lists = found[name]
            out = np.full((len(rows), length), self._spec.pad_id, dtype)
            if cuts:
                out[full] = np.concatenate([lists[d][s : s + n] for d, s, n in cuts])
            batch[name] = out
        if self._spec.boundaries:
            batch.update(_boundaries(full, owner, sizes))
        return batch

    def _pieces_of(self, rows: Rows) -> tuple[Rows, Rows]:
        """The pieces of these rows, in order, and for each the place in `rows` it belongs to."""
        first = self._first[rows]
        many = self._first[rows + 1] - first
        owner = np.repeat(np.arange(len(rows)), many)
        return owner, _within(many) + np.repeat(first, many)

    @property
    def bounded(self) -> bool:
        """Whether it matters what is done: see `ShardSource`."""
        return reading.bounded(self._own)

    def _documents(self, rows: Rows) -> Rows:
        return np.unique(self._row[self._pieces_of(rows)[1]])

    def ahead(self, rows: Rows) -> None:
        """The documents in these rows are wanted soon."""
        if not self._source.complete:
            self._source.ahead(self._documents(rows))

    def done(self, rows: Rows) -> None:
        """The documents in these rows; one that was cut is in others, too."""
        self._source.done(self._documents(rows))

    def close(self) -> None:
        reading.close(self._own)


def _within(many: Rows) -> Rows:
    """0..many[0]-1, 0..many[1]-1, … in one array."""
    ends = np.cumsum(many)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - many, many)


def _boundaries(full: Array, owner: Rows, sizes: Rows) -> dict[str, Values]:
    segments = np.zeros(full.shape, np.int32)
    positions = np.zeros(full.shape, np.int32)
    number = _within(np.bincount(owner, minlength=len(full))) + 1
    segments[full] = np.repeat(number, sizes)
    positions[full] = _within(sizes)
    return {SEGMENTS: segments, POSITIONS: positions}


def _list_column(source: Source, name: str) -> Column:
    column = reading.column_of(source, name, "the packed column")
    if column.kind != "list":
        raise BadInput(
            f'column "{name}" is {column}, not lists of tokens',
            "Pack columns of lists: tokenise the text when the dataset is prepared.",
            column=name,
        )
    return column


def _columns(spec: Pack, packed: list[Column]) -> list[Column]:
    made = [Column(each.name, "tensor", each.dtype, (spec.length,)) for each in packed]
    if spec.boundaries:
        made += [Column(name, "tensor", "int32", (spec.length,)) for name in (SEGMENTS, POSITIONS)]
    return made


# the index


def _index(spec: Pack, source: Source, columns: list[Column]) -> tuple[pa.Table, pa.Table]:
    """Rows: where the pieces of each begin, and the end. Pieces: row of the split, start, size."""
    lengths = _lengths(source, columns)
    first, row, start, size = [np.zeros(1, np.int64)], [], [], []
    pieces = 0
    for at in range(0, len(lengths), spec.window):
        made = _pack_window(lengths[at : at + spec.window], spec.length)
        counts, documents, starts, sizes = made
        first.append(np.cumsum(counts) + pieces)
        pieces += len(documents)
        row.append(documents + at)
        start.append(starts)
        size.append(sizes)
    if not pieces:
        raise BadInput(
            f"no token is left to pack: all {len(lengths)} documents are empty",
            "Look at what the prepare function gives.",
        )
    table = {
        "row": np.concatenate(row),
        "start": np.concatenate(start),
        "size": np.concatenate(size),
    }
    return pa.table({"first": np.concatenate(first)}), pa.table(table)


def _lengths(source: Source, columns: list[Column]) -> Rows:
    first, *others = columns
    lengths = reading.lengths_of(source, first)
    for each in others:
        other = reading.lengths_of(source, each)
        if (other != lengths).any():
            row = int(np.flatnonzero(other != lengths)[0])
            raise BadInput(
                f'row {row} has {lengths[row]} values in "{first.name}" and {other[row]} in '
                f'"{each.name}"',
                "Columns that are packed together are equally long in every row.",
                row=row,
            )
    return lengths


def _pack_window(lengths: Rows, room: int) -> tuple[Rows, Rows, Rows, Rows]:
    """Pieces per row, then of every piece its document, start and size; rows in order."""
    whole, rest = np.divmod(lengths, room)
    documents = np.flatnonzero(rest)
    bins = best_fit(rest[documents], room)
    many = int(bins.max()) + 1 if len(bins) else 0
    order = np.lexsort((documents, bins))
    cut = np.repeat(np.arange(len(lengths)), whole)
    return (
        np.concatenate([np.bincount(bins, minlength=many), np.ones(len(cut), np.int64)]),
        np.concatenate([documents[order], cut]),
        np.concatenate([(whole * room)[documents][order], _within(whole) * room]),
        np.concatenate([rest[documents][order], np.full(len(cut), room)]),
    )


def best_fit(sizes: Rows, room: int) -> Rows:
    """Best-fit decreasing: for each size (1..room) the number of its bin, from 0 as they open.

    Of equally full bins the one that became so first. Equal sizes are placed at once: as long
    as a bin has room for one more of them it is the fullest that has, so one after the other
    would fill the same bins.

    >>> best_fit(np.array([3, 6, 5, 4, 2]), 10).tolist()
    [1, 0, 1, 0, 1]
    """
    bins = np.empty(len(sizes), np.int64)
    order = np.argsort(-sizes, kind="stable")
    opened = _Opened(room)
    for size, items in _of_one_size(sizes, order):
        placed = 0
        while placed < len(items):
            at, chosen, per = opened.fullest(size, len(items) - placed)
            these = items[placed : placed + per * len(chosen)]
            bins[these] = np.repeat(chosen, per)[: len(these)]
            opened.give_back(chosen, at, size, per, len(these))
            placed += len(these)
    return bins


def _of_one_size(sizes: Rows, order: Rows) -> Iterator[tuple[int, Rows]]:
    if not len(order):
        return
    ordered = sizes[order]
    cuts = np.flatnonzero(np.diff(ordered)) + 1
    for items in np.split(order, cuts):
        yield int(sizes[items[0]]), items


class _Opened:
    """Bins by the room they have left; `_some` has bit r set where there are any with room r."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._bins: dict[int, Rows] = {}
        self._some = 0
        self._count = 0

    def fullest(self, size: int, items: int) -> tuple[int, Rows, int]:
        """(room, bins, items that go into each): the fullest with room for `size`, else new."""
        fitting = self._some >> size
        if fitting:
            at = size + (fitting & -fitting).bit_length() - 1
            per = at // size
            many = -(-items // per)
            chosen, left = self._bins[at][:many], self._bins[at][many:]
            self._put(at, left)
        else:
            at, per = self._room, self._room // size
            many = -(-items // per)
            chosen = np.arange(self._count, self._count + many)
            self._count += many
        return at, chosen, per

    def give_back(self, chosen: Rows, at: int, size: int, per: int, items: int) -> None:
        """All of `chosen` got `per` items, the last perhaps fewer."""
        last = items - per * (len(chosen) - 1)
        self._add(at - per * size, chosen[:-1])
        self._add(at - last * size, chosen[-1:])

    def _add(self, at: int, bins: Rows) -> None:
        if at and len(bins):
            known = self._bins.get(at)
            self._put(at, bins if known is None else np.concatenate([known, bins]))

    def _put(self, at: int, bins: Rows) -> None:
        self._bins[at] = bins
        self._some = self._some | 1 << at if len(bins) else self._some & ~(1 << at)
