"""Which rank writes which bytes, and the copy that a training step waits for.

The shared tree is one stream of bytes, its entries end to end; rank r writes the r-th of W equal
spans. Every rank computes the same cuts from the same tree, without a word to the others. A cut
moves to the nearest border of a tensor unless the tensor is large.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Literal

from penstock.base.errors import BadInput
from penstock.checkpoints.arrays import numpy_bytes, torch_bytes
from penstock.checkpoints.state import Encoded, encode

ALIGNMENT = 64  # bytes; every piece begins on such a border, for SIMD and for memory-mapping
SPLIT_ABOVE = 1 << 20  # bytes; a smaller tensor is never cut between two ranks
FORMAT = 1  # of index, part and manifest

Tree = Literal["shared", "own"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [start, start + nbytes) of an entry lie at [offset, offset + nbytes) of a part."""

    tree: Tree
    entry: int
    start: int
    offset: int
    nbytes: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "tree": self.tree,
            "entry": self.entry,
            "start": self.start,
            "offset": self.offset,
            "nbytes": self.nbytes,
        }


class Plan:
    """One rank's part of a checkpoint.

    nbytes  room that `copy_into` needs

    Numbers, text and the like are taken when the plan is made, tensors when they are copied:
    make and use it between two optimiser steps.
    """

    def __init__(
        self, shared: Encoded, own: Encoded, pieces: list[Piece], rank: int, world_size: int
    ) -> None:
        self._shared, self._own, self._pieces = shared, own, pieces
        self._rank, self._world_size = rank, world_size
        last = pieces[-1] if pieces else None
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

    def copy_into(self, buffer: memoryview) -> None:
        """Copy this rank's bytes; nothing else, because the training step waits for it.

        buffer  writable, at least `nbytes` long; what lies behind `nbytes` is left alone
        Padding is zeroed, so that equal states give equal bytes. Raises BadInput.
        """
        target = self._check(buffer)
        sources = {"shared": self._shared.sources, "own": self._own.sources}
        waiting: list[tuple[Piece, Any]] = []  # copies from devices that may still be under way
        devices: set[Any] = set()
        end = 0
        for piece in self._pieces:
            if piece.offset > end:
                target[end : piece.offset] = 0
            end = piece.offset + piece.nbytes
            source = sources[piece.tree][piece.entry]
            stop = piece.start + piece.nbytes
            if not _is_tensor(source):
                target[piece.offset : end] = numpy_bytes(source)[piece.start : stop]
            elif source.device.type == "cpu":
                target[piece.offset : end] = torch_bytes(source).numpy()[piece.start : stop]
            else:
                devices.add(source.device)
                flat = torch_bytes(source)[piece.start : stop]
                waiting.append((piece, flat.to("cpu", non_blocking=True)))
        target[end : self.nbytes] = 0
        _synchronise(devices)
        for piece, flat in waiting:
            target[piece.offset : piece.offset + piece.nbytes] = flat.numpy()

    def _check(self, buffer: memoryview) -> Any:
        import numpy as np

        if buffer.readonly or buffer.nbytes < self.nbytes:
            raise BadInput(
                f"a buffer of {buffer.nbytes} bytes cannot take a part of {self.nbytes} bytes",
                "Give a writable buffer of at least plan.nbytes.",
                wanted=self.nbytes,
                got=buffer.nbytes,
            )
        return np.frombuffer(buffer, dtype=np.uint8)


def plan(shared: Any, own: Any, rank: int, world_size: int) -> Plan:
    """Plan this rank's part.

    shared  tree that is equal on all ranks (model, optimiser); its bytes are spread over them
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
    both, mine = encode(shared, "shared"), encode(own, "own")
    cuts = spans([entry.nbytes for entry in both.entries], world_size)[rank]
    whole = [(n, 0, entry.nbytes) for n, entry in enumerate(mine.entries) if entry.nbytes]
    pieces = _lay_out("shared", cuts, 0)
    end = pieces[-1].offset + pieces[-1].nbytes if pieces else 0
    return Plan(both, mine, pieces + _lay_out("own", whole, end), rank, world_size)


def spans(sizes: list[int], world_size: int) -> list[list[tuple[int, int, int]]]:
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


def _lay_out(tree: Tree, parts: Iterable[tuple[int, int, int]], begin: int) -> list[Piece]:
    """Give every (entry, start, stop) an aligned offset, one after the other."""
    pieces = []
    for entry, start, stop in parts:
        offset = _aligned(begin)
        pieces.append(Piece(tree, entry, start, offset, stop - start))
        begin = offset + stop - start
    return pieces


def tree_dict(encoded: Encoded) -> dict[str, Any]:
    """The part of a tree that is JSON."""
    entries = [entry.as_dict() for entry in encoded.entries]
    return {"structure": encoded.structure, "entries": entries}


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _is_tensor(source: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _synchronise(devices: set[Any]) -> None:
    """Wait for copies to the CPU; only CUDA's are asynchronous."""
    for device in devices:
        if device.type == "cuda":
            import torch

            torch.cuda.synchronize(device)
