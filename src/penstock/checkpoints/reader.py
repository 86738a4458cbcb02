"""From stored parts back to state, verified chunk by chunk while it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from penstock.base.errors import BadInput, Damaged
from penstock.blobs import Blobs
from penstock.checkpoints.arrays import Entry
from penstock.checkpoints.filling import Room, fill
from penstock.checkpoints.integrity import Damage, Readable, newest_first, open_manifest
from penstock.checkpoints.manifest import Manifest, TreeRecord
from penstock.checkpoints.sharding import Sharding
from penstock.checkpoints.state import decode
from penstock.records import Checkpoint

Onto = Callable[[Entry], Sharding | None]


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


def load(
    blobs: Readable, manifest: Manifest, rank: int, world_size: int, onto: Onto | None = None
) -> State:
    """Read the shared state and, at the world size that wrote it, this rank's own.

    blobs  a store, or `Slots`
    onto   says of an entry how this rank's tensor is distributed (`sharding_of`); only its part is
           read then, however it was distributed when it was written. None: it comes whole

    Reads only the chunks it needs, each once, and gives nothing that was not verified.
    Raises Damaged (its fact `damage` is `Damage.as_dict()`), Unavailable, MissingExtra, BadInput.
    """
    if not 0 <= rank < world_size:
        raise BadInput(f"rank {rank} is not one of {world_size}", "Ranks count from 0.", rank=rank)
    mine = rank if world_size == manifest.world_size else None
    shared = _Filling(manifest.shared, onto)
    own = _Filling(manifest.parts[rank].own) if mine is not None else None
    for part in manifest.parts:
        trees = {"shared": shared}
        if own is not None and part.rank == mine:
            trees["own"] = own
        wanted = [piece for piece in part.pieces if piece.tree in trees]
        takes = (trees[piece.tree].rooms[piece.entry].take(piece) for piece in wanted)
        fill(blobs, manifest.step, part, takes)
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

    def __init__(self, record: TreeRecord, onto: Onto | None = None) -> None:
        self._structure = record.structure
        shardings = [None if onto is None else _fitting(entry, onto) for entry in record.entries]
        self.rooms = [
            Room(entry, None if sharding is None else sharding.box)
            for entry, sharding in zip(record.entries, shardings, strict=True)
        ]
        self._wraps = [None if each is None else each.wrap for each in shardings]

    def tree(self) -> Any:
        leaves = [room.leaf() for room in self.rooms]
        wrapped = [
            leaf if wrap is None else wrap(leaf)
            for leaf, wrap in zip(leaves, self._wraps, strict=True)
        ]
        return decode(self._structure, wrapped)


def _fitting(entry: Entry, onto: Onto) -> Sharding | None:
    """How an entry is to be distributed. Of another shape than what it is for it is loaded whole,
    so that whoever puts it there says what does not fit."""
    sharding = onto(entry) if entry.kind == "tensor" else None
    fits = sharding is not None and sharding.shape == entry.shape and sharding.box is not None
    return sharding if fits else None


def _as_damage(checkpoint: Checkpoint, error: Damaged) -> Damage:
    """The damage that `load` met; a contradiction in the manifest concerns all of it."""
    if "damage" in error.facts:
        return Damage.from_dict(error.facts["damage"])
    return Damage(checkpoint.step, None, None, (), error.what, checkpoint.digest)
