"""Which rank writes which bytes, and the copy that a training step waits for.

The shared tree is one stream of bytes, its entries end to end; rank r writes the r-th of W equal
spans. Every rank computes the same cuts from the same tree, without a word to the others. A cut
moves to the nearest border of a tensor unless the tensor is large.

Of distributed tensors each rank writes the part that it holds. Ranks that hold the same part take
turns: a large part is cut into equal spans, a small one is written by one of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from penstock.base.errors import BadInput
from penstock.checkpoints.arrays import Entry, cannot_travel
from penstock.checkpoints.boxes import Box, Shape, is_run, run_boxes, span
from penstock.checkpoints.copying import Copy, Span
from penstock.checkpoints.sharding import Sharding
from penstock.checkpoints.state import Encoded, encode

ALIGNMENT = 64  # bytes; every piece begins on such a border, for SIMD and for memory-mapping
SPLIT_ABOVE = 1 << 20  # bytes; a smaller tensor is never cut between two ranks
FORMAT = 1  # of index, part and manifest
BOXED = 2  # of a manifest whose pieces are boxes; one without them is written as format 1

Tree = Literal["shared", "own"]


class Piece(NamedTuple):
    """Bytes [start, start + nbytes) of an entry lie at [offset, offset + nbytes) of a part.

    box  where it is given, `start` counts in the bytes of this box of the tensor, row-major
    """

    tree: Tree
    entry: int
    start: int
    offset: int
    nbytes: int
    box: Box | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` is the way back."""
        data: dict[str, Any] = {
            "tree": self.tree,
            "entry": self.entry,
            "start": self.start,
            "offset": self.offset,
            "nbytes": self.nbytes,
        }
        if self.box is not None:
            data["box"] = [list(self.box.offsets), list(self.box.sizes)]
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Piece:
        if "box" not in data:
            return cls(**data)
        offsets, sizes = data["box"]
        return cls(**{**data, "box": Box(tuple(offsets), tuple(sizes))})


class Cut(NamedTuple):
    """Bytes that a rank writes, before they have a place in its part.

    source  where they begin in the bytes of the leaf that the rank has
    """

    entry: int
    start: int
    nbytes: int
    source: int
    box: Box | None = None


class Plan:
    """One rank's part of a checkpoint.

    nbytes  room that `copy_into` needs

    Numbers, text and the like are taken when the plan is made, tensors when they are copied:
    make and use it between two optimiser steps.
    """

    def __init__(
        self,
        shared: Encoded,
        own: Encoded,
        pieces: list[tuple[Piece, int]],  # with where each begins in its source
        rank: int,
        world_size: int,
    ) -> None:
        self._shared, self._own = shared, own
        self._pieces = [piece for piece, _ in pieces]
        self._begins = [begin for _, begin in pieces]
        self._rank, self._world_size = rank, world_size
        last = self._pieces[-1] if pieces else None
        self.nbytes = _aligned(last.offset + last.nbytes) if last else 0

    @cached_property
    def index(self) -> dict[str, Any]:
        """JSON-able: what lies where. Made when it is asked for, so that the copy comes first."""
        return {
            "format": FORMAT,
            "rank": self._rank,
            "world_size": self._world_size,
            "nbytes": self.nbytes,
            "shared": tree_dict(self._shared),
            "own": tree_dict(self._own),
            "pieces": [piece.as_dict() for piece in self._pieces],
        }

    def spans(self) -> Iterator[Span]:
        """This rank's bytes in the order of their offsets, with the leaves that they come from."""
        trees = {"shared": self._shared, "own": self._own}
        for piece, begin in zip(self._pieces, self._begins, strict=True):
            tree = trees[piece.tree]
            name, source = tree.entries[piece.entry].name, tree.sources[piece.entry]
            yield Span(name, source, begin, piece.offset, piece.nbytes)

    def copy_into(self, buffer: memoryview) -> None:
        """Copy this rank's bytes, all at once; `copying.Copy` does it beside a step.

        buffer  writable, at least `nbytes` long; what lies behind `nbytes` is left alone
        Padding is zeroed, so that equal states give equal bytes. Raises BadInput.
        """
        Copy(self, buffer).now()


def plan(shared: Any, own: Any, rank: int, world_size: int) -> Plan:
    """Plan this rank's part.

    shared  tree that is equal on all ranks (model, optimiser); its bytes are spread over them, and
            of distributed tensors (DTensor) each rank writes what it holds
    own     this rank's tree (random states, cursors)
    Raises CannotTravel, naming the path of a leaf that has no stored form; BadInput.
    """
    if not 0 <= rank < world_size:
        raise BadInput(
            f"rank {rank} is not one of {world_size}",
            "Ranks count from 0 to world_size - 1.",
            rank=rank,
            world_size=world_size,
        )
    return laid_out(encode(shared, "shared"), encode(own, "own"), rank, world_size)


def laid_out(both: Encoded, mine: Encoded, rank: int, world_size: int) -> Plan:
    """The plan of trees that are taken apart already. Raises CannotTravel."""
    for number in mine.shardings:
        name = mine.entries[number].name
        raise cannot_travel(name, "it is distributed over the ranks, and this is one rank's own")
    spread = tuple(0 if n in both.shardings else e.nbytes for n, e in enumerate(both.entries))
    parts: list[Cut] = []
    for number, sharding in both.shardings.items():
        parts += held(number, both.entries[number], sharding)
    own = tuple(entry.nbytes for entry in mine.entries)
    return Plan(both, mine, _pieces(spread, tuple(parts), own, rank, world_size), rank, world_size)


@lru_cache(maxsize=4)  # a training saves states of one form again and again
def _pieces(
    spread: tuple[int, ...],
    parts: tuple[Cut, ...],
    own: tuple[int, ...],
    rank: int,
    world_size: int,
) -> list[tuple[Piece, int]]:
    """What a rank writes, and where each piece begins in its source. Not to be changed.

    spread  bytes of each shared entry that is spread over the ranks, 0 of others
    parts   cuts of those others
    own     bytes of each entry of the rank's own
    """
    cuts = [
        Cut(n, start, stop - start, start) for n, start, stop in spans(spread, world_size)[rank]
    ]
    cuts = sorted([*cuts, *parts], key=lambda cut: cut.entry)
    whole = [Cut(n, 0, nbytes, 0) for n, nbytes in enumerate(own) if nbytes]
    pieces = _lay_out("shared", cuts, 0)
    end = pieces[-1][0].offset + pieces[-1][0].nbytes if pieces else 0
    return pieces + _lay_out("own", whole, end)


def held(number: int, entry: Entry, sharding: Sharding) -> list[Cut]:
    """What this rank writes of a distributed tensor: nothing, or one run of its part's bytes."""
    box = sharding.box
    if box is None or not box.volume:
        return []
    itemsize = entry.nbytes // math.prod(entry.shape)
    total = box.volume * itemsize
    low, high = 0, total
    if total > SPLIT_ABOVE:
        each = -(-_aligned(total) // sharding.replicas)
        low = min(total, _aligned(each * sharding.replica))
        high = min(total, _aligned(each * (sharding.replica + 1)))
    elif number % sharding.replicas != sharding.replica:
        return []
    if low == high:
        return []
    if is_run(sharding.shape, box):
        begin = span(sharding.shape, box)[0] * itemsize
        return [Cut(number, begin + low, high - low, low)]
    return [Cut(number, low, high - low, low, box)]


def boxes_of(
    piece: Piece, shape: Shape, itemsize: int, low: int = 0, high: int | None = None
) -> Iterator[tuple[int, Box]]:
    """The boxes of the tensor that bytes [low, high) of a piece are, all of them by default, each
    with where in these bytes it begins. Both ends lie between elements."""
    within = shape if piece.box is None else piece.box.sizes
    begin = (piece.start + low) // itemsize
    end = (piece.start + (piece.nbytes if high is None else high)) // itemsize
    for at, box in run_boxes(within, begin, end):
        yield at * itemsize, box if piece.box is None else box.moved(piece.box.offsets)


def needed(piece: Piece, shape: Shape, itemsize: int, wanted: Box) -> tuple[int, int] | None:
    """The bytes [low, high) of a piece among which are all that it has of a box; None if none."""
    seen = wanted
    if piece.box is not None:
        met = wanted.meet(piece.box)
        if met is None:
            return None
        shape, seen = piece.box.sizes, met.seen_from(piece.box.offsets)
    first, end = span(shape, seen)
    low = max(0, first * itemsize - piece.start)
    high = min(piece.nbytes, end * itemsize - piece.start)
    return (low, high) if low < high else None


def spans(sizes: Sequence[int], world_size: int) -> list[list[tuple[int, int, int]]]:
    """For every rank, which bytes of which entries are its own.

    sizes    bytes of each entry
    returns  [rank] -> [(entry, start, stop)]; each byte of each entry belongs to one rank

    >>> spans([10, 10, 20], 2)
    [[(0, 0, 10), (1, 0, 10)], [(2, 0, 20)]]
    """
    borders = [0, *accumulate(sizes)]  # entry n lies at [borders[n], borders[n + 1])
    cuts = [_cut(borders, borders[-1] * rank // world_size) for rank in range(world_size)]
    cuts.append(borders[-1])
    found: list[list[tuple[int, int, int]]] = [[] for _ in range(world_size)]
    rank = 0
    for entry, size in enumerate(sizes):
        start, begin = 0, borders[entry]
        while start < size:
            while cuts[rank + 1] <= begin + start:
                rank += 1
            stop = min(size, cuts[rank + 1] - begin)
            found[rank].append((entry, start, stop))
            start = stop
    return found


def _cut(borders: list[int], ideal: int) -> int:
    """The border nearest to `ideal`; inside a large entry, the aligned place before it."""
    from bisect import bisect_right

    at = bisect_right(borders, ideal) - 1
    if borders[at] == ideal or at + 1 == len(borders):
        return ideal
    low, high = borders[at], borders[at + 1]
    if high - low > SPLIT_ABOVE:
        return low + (ideal - low) // ALIGNMENT * ALIGNMENT
    return low if ideal - low <= high - ideal else high


def _lay_out(tree: Tree, cuts: Iterable[Cut], begin: int) -> list[tuple[Piece, int]]:
    """Give every cut an aligned offset, one after the other."""
    pieces = []
    for cut in cuts:
        offset = _aligned(begin)
        piece = Piece(tree, cut.entry, cut.start, offset, cut.nbytes, cut.box)
        pieces.append((piece, cut.source))
        begin = offset + cut.nbytes
    return pieces


def tree_dict(encoded: Encoded) -> dict[str, Any]:
    """The part of a tree that is JSON."""
    entries = [entry.as_dict() for entry in encoded.entries]
    return {"structure": encoded.structure, "entries": entries}


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
