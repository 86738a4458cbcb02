"""From stored parts back to state, verified chunk by chunk while it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.base.errors import BadInput, Damaged
from penstock.blobs import Blobs
from penstock.checkpoints.arrays import allocate, disagrees
from penstock.checkpoints.integrity import (
    Damage,
    newest_first,
    open_manifest,
    read_chunks,
)
from penstock.checkpoints.layout import Piece
from penstock.checkpoints.manifest import Manifest, Part, TreeRecord
from penstock.checkpoints.state import decode
from penstock.records import Checkpoint


@dataclass(frozen=True, slots=True)
class State:
    """shared  the tree that all ranks had, tensors on the CPU
    own     this rank's tree; None when the world size is another one
    extra   what `assemble` was given
    """

    shared: Any
    own: Any | None
    extra: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """state, checkpoint, manifest  of the newest whole one; damages: met on the way to it."""

    state: State
    checkpoint: Checkpoint
    manifest: Manifest
    damages: list[Damage]


def load(blobs: Blobs, manifest: Manifest, rank: int, world_size: int) -> State:
    """Read the shared state and, at the world size that wrote it, this rank's own.

    Reads only the chunks it needs, each once, and gives nothing that was not verified.
    Raises Damaged (its fact `damage` is `Damage.as_dict()`), Unavailable, MissingExtra, BadInput.
    """
    if not 0 <= rank < world_size:
        raise BadInput(f"rank {rank} is not one of {world_size}", "Ranks count from 0.", rank=rank)
    mine = rank if world_size == manifest.world_size else None
    shared = _Filling(manifest.shared)
    own = _Filling(manifest.parts[rank].own) if mine is not None else None
    for part in manifest.parts:
        trees = {"shared": shared}
        if own is not None and part.rank == mine:
            trees["own"] = own
        _fill(blobs, manifest.step, part, trees)
    return State(shared.tree(), own.tree() if own is not None else None, manifest.extra)


def load_newest(
    checkpoints: Iterable[Checkpoint], blobs: Blobs, rank: int, world_size: int
) -> tuple[Loaded | None, list[Damage]]:
    """Verify and load in one pass, for a single process: the first that loads, newest first.

    Ranks of a gang must agree on a step: there the controller asks `newest_whole` and all ranks
    `load` what it found. Raises NewerSchema, Unavailable, MissingExtra.
    """
    damages: list[Damage] = []
    for checkpoint in newest_first(checkpoints):
        manifest, damage = open_manifest(checkpoint, blobs)
        if manifest is not None:
            try:
                state = load(blobs, manifest, rank, world_size)
                return Loaded(state, checkpoint, manifest, damages), damages
            except Damaged as error:
                damage = _as_damage(checkpoint, error)
        if damage is not None:
            damages.append(damage)
    return None, damages


class _Filling:
    """A tree whose leaves are allocated and wait for their bytes."""

    def __init__(self, record: TreeRecord) -> None:
        self._record = record
        self._missing = [entry.nbytes for entry in record.entries]
        rooms = [allocate(entry) for entry in record.entries]
        self.rooms: list[memoryview] = [room for room, _ in rooms]
        self._leaves: list[Callable[[], Any]] = [leaf for _, leaf in rooms]

    def put(self, entry: int, at: int, data: memoryview) -> None:
        self.rooms[entry][at : at + len(data)] = data
        self._missing[entry] -= len(data)

    def tree(self) -> Any:
        for entry, missing in zip(self._record.entries, self._missing, strict=True):
            if missing:
                raise disagrees(entry)
        return decode(self._record.structure, [leaf() for leaf in self._leaves])


def _fill(blobs: Blobs, step: int, part: Part, trees: dict[str, _Filling]) -> None:
    """Read the chunks that hold bytes of `trees` and put each byte in its place."""
    wanted = [piece for piece in part.pieces if piece.tree in trees]
    numbers = _touched(part, wanted)
    first = 0  # pieces before it end before the chunk begins
    for number, data in read_chunks(blobs, step, part, numbers):
        if isinstance(data, Damage):
            raise data.as_error()
        begin = part.chunks[number].offset
        end = begin + len(data)
        view = memoryview(data)
        while wanted[first].offset + wanted[first].nbytes <= begin:
            first += 1
        for piece in wanted[first:]:
            if piece.offset >= end:
                break
            low, high = max(begin, piece.offset), min(end, piece.offset + piece.nbytes)
            at = piece.start + low - piece.offset
            trees[piece.tree].put(piece.entry, at, view[low - begin : high - begin])


def _touched(part: Part, pieces: Sequence[Piece]) -> list[int]:
    """Numbers of the chunks that hold bytes of the pieces, ascending. Both are sorted."""
    found: list[int] = []
    waiting = iter(pieces)
    piece = next(waiting, None)
    for number, chunk in enumerate(part.chunks):
        while piece is not None and piece.offset + piece.nbytes <= chunk.offset:
            piece = next(waiting, None)
        if piece is None:
            break
        if piece.offset < chunk.offset + chunk.nbytes:
            found.append(number)
    return found


def _as_damage(checkpoint: Checkpoint, error: Damaged) -> Damage:
    """The damage that `load` met; a contradiction in the manifest concerns all of it."""
    if "damage" in error.facts:
        return Damage.from_dict(error.facts["damage"])
    return Damage(checkpoint.step, None, None, (), error.what, checkpoint.digest)
