"""Rooms for tensors, or for boxes of them, and what of a part's bytes goes into which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.checkpoints.arrays import Entry, allocate, disagrees
from penstock.checkpoints.boxes import Box, whole
from penstock.checkpoints.integrity import Damage, Readable, read_chunks
from penstock.checkpoints.layout import Piece, boxes_of, needed
from penstock.checkpoints.manifest import Part


@dataclass(frozen=True, slots=True)
class Take:
    """Bytes [offset, offset + nbytes) of a part that somebody wants; `put` is given them, in order,
    as (where among them, bytes)."""

    offset: int
    nbytes: int
    put: Callable[[int, memoryview], None]


class Room:
    """Room for an entry's bytes, or for those of one box of its tensor.

    box  None: all of it
    """

    def __init__(self, entry: Entry, box: Box | None = None) -> None:
        self._entry, self._box = entry, box
        self._volume = whole(entry.shape).volume
        held = entry
        if box is not None:
            size = box.volume * self._itemsize
            held = entry._replace(shape=box.sizes, nbytes=size, stride=None)
        self._missing = held.nbytes
        self._view, self._leaf = allocate(held)

    @property
    def _itemsize(self) -> int:
        return self._entry.nbytes // max(1, self._volume)

    def take(self, piece: Piece) -> Take | None:
        """What it wants of a piece of its entry; None if nothing."""
        if piece.box is None and self._box is None:
            return Take(
                piece.offset, piece.nbytes, lambda at, data: self._put(piece.start + at, data)
            )
        shape = self._entry.shape
        wanted = whole(shape) if self._box is None else self._box
        if not wanted.volume:
            return None
        found = needed(piece, shape, self._itemsize, wanted)
        if found is None:
            return None
        gathering = _Gathering(
            found[1] - found[0], lambda data: self._scatter(piece, found, wanted, data)
        )
        return Take(piece.offset + found[0], found[1] - found[0], gathering.put)

    def leaf(self) -> Any:
        """The filled tensor, array or bytes. Raises Damaged when bytes are missing."""
        if self._missing:
            raise disagrees(self._entry)
        return self._leaf()

    def _put(self, at: int, data: memoryview) -> None:
        self._view[at : at + len(data)] = data
        self._missing -= len(data)

    def _scatter(self, piece: Piece, among: tuple[int, int], wanted: Box, data: bytearray) -> None:
        """Put the elements of a piece's bytes [low, high) that are in the box where they belong."""
        import numpy as np

        size = self._itemsize
        target = np.frombuffer(self._view, np.uint8).reshape(*wanted.sizes, size)
        for at, box in boxes_of(piece, self._entry.shape, size, *among):
            met = box.meet(wanted)
            if met is None:
                continue
            flat = np.frombuffer(data, np.uint8, box.volume * size, at)
            source = flat.reshape(*box.sizes, size)
            there, here = met.seen_from(wanted.offsets), met.seen_from(box.offsets)
            target[there.slices] = source[here.slices]
            self._missing -= met.volume * size


class _Gathering:
    """Bytes that come chunk by chunk and are handed on when all are there."""

    def __init__(self, nbytes: int, done: Callable[[bytearray], None]) -> None:
        self._nbytes = self._missing = nbytes
        self._done = done
        self._data = bytearray()

    def put(self, at: int, data: memoryview) -> None:
        if not self._data:
            self._data = bytearray(self._nbytes)
        self._data[at : at + len(data)] = data
        self._missing -= len(data)
        if not self._missing:
            done, self._data = self._data, bytearray()
            self._done(done)


def fill(blobs: Readable, step: int, part: Part, takes: Iterable[Take | None]) -> None:
    """Read the chunks that hold what is wanted, each once, and give every byte to who wants it.

    takes  None among them counts for nothing
    Raises Damaged (its fact `damage` is `Damage.as_dict()`), Unavailable.
    """
    wanted = sorted((each for each in takes if each is not None), key=lambda take: take.offset)
    waiting = 0  # those before it end before the chunk begins
    for number, data in read_chunks(blobs, step, part, _touched(part, wanted)):
        if isinstance(data, Damage):
            raise data.as_error()
        begin = part.chunks[number].offset
        end = begin + len(data)
        view = memoryview(data)
        while wanted[waiting].offset + wanted[waiting].nbytes <= begin:
            waiting += 1
        for take in wanted[waiting:]:
            if take.offset >= end:
                break
            low, high = max(begin, take.offset), min(end, take.offset + take.nbytes)
            if low < high:
                take.put(low - take.offset, view[low - begin : high - begin])


def _touched(part: Part, takes: Sequence[Take]) -> list[int]:
    """Numbers of the chunks that hold bytes of the takes, ascending. Both are sorted."""
    found: list[int] = []
    reach = 0  # where the takes that begin before the chunk's end come to an end
    waiting = iter(takes)
    take = next(waiting, None)
    for number, chunk in enumerate(part.chunks):
        end = chunk.offset + chunk.nbytes
        while take is not None and take.offset < end:
            reach = max(reach, take.offset + take.nbytes)
            take = next(waiting, None)
        if reach > chunk.offset:
            found.append(number)
    return found
