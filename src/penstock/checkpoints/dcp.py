"""torch.distributed.checkpoint over Penstock's checkpoints: DCP's planners, our verified bytes.

    dcp.load(state, storage_reader=Reader(blobs, manifest))
    dcp.save(state, storage_writer=Writer(…))        see `dcp_writing`

Keys are those of the tracked objects: {"model": model.state_dict(), …}. No pickle is stored: plain
values are kept as JSON.
"""

from __future__ import annotations

import io
import os
from typing import Any

import torch
from torch.distributed.checkpoint import metadata as dcp
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from penstock.base.errors import NotFound
from penstock.blobs import Blobs
from penstock.checkpoints.boxes import Box
from penstock.checkpoints.filling import Room, fill
from penstock.checkpoints.manifest import Manifest
from penstock.checkpoints.state import decode


class Reader(StorageReader):
    """Reads a checkpoint at any sharding; a rank reads only the chunks that it needs.

    Raises Damaged, naming rank, chunk and tensors, instead of giving bytes that were not verified.
    """

    def __init__(self, blobs: Blobs, manifest: Manifest) -> None:
        self._blobs, self._manifest = blobs, manifest
        tree, self._numbers = _with_placeholders(manifest)
        self._leaves, self._paths = flatten_state_dict(tree)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """A reader is of one checkpoint: there is nothing to begin anew."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> dcp.Metadata:
        found: dict[str, dcp.TensorStorageMetadata | dcp.BytesStorageMetadata] = {}
        for name, leaf in self._leaves.items():
            if isinstance(leaf, torch.Tensor):
                chunk = dcp.ChunkStorageMetadata(torch.Size([0] * leaf.ndim), leaf.shape)
                properties = dcp.TensorProperties(dtype=leaf.dtype)
                found[name] = dcp.TensorStorageMetadata(properties, leaf.shape, [chunk])
            else:
                found[name] = dcp.BytesStorageMetadata()
        return dcp.Metadata(found, planner_data=self._paths)

    def set_up_storage_reader(
        self, metadata: dcp.Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing to open."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Raises Damaged, Unavailable."""
        wanted: list[tuple[ReadItem, int, Room]] = []
        plain: list[ReadItem] = []
        for item in plan.items:
            if item.type == LoadItemType.BYTE_IO:
                plain.append(item)
                continue
            number = self._number(item)
            box = Box(tuple(item.storage_offsets), tuple(item.lengths))
            wanted.append((item, number, Room(self._manifest.shared.entries[number], box)))
        self._fill({number: [r for _, n, r in wanted if n == number] for _, number, _ in wanted})
        for item, _, room in wanted:
            target = planner.resolve_tensor(item).detach()
            target.copy_(room.leaf())
            planner.commit_tensor(item, target)
        for item in plain:
            planner.load_bytes(item, self._as_bytes(item))
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return False  # never chosen by a path

    def _number(self, item: ReadItem) -> int:
        leaf = self._leaves.get(item.storage_index.fqn)
        if leaf is None:
            raise NotFound(
                f'the checkpoint has no "{item.storage_index.fqn}"',
                "Its keys are those of the tracked objects.",
                keys=sorted(self._leaves)[:20],
            )
        return self._numbers[id(leaf)]

    def _fill(self, rooms: dict[int, list[Room]]) -> None:
        manifest = self._manifest
        for part in manifest.parts:
            takes = (
                room.take(piece)
                for piece in part.pieces
                if piece.tree == "shared"
                for room in rooms.get(piece.entry, ())
            )
            fill(self._blobs, manifest.step, part, takes)

    def _as_bytes(self, item: ReadItem) -> io.BytesIO:
        """As DCP's planners take a plain value: made here, from what was verified."""
        leaf = self._leaves[item.storage_index.fqn]
        leaf = self._read_arrays(leaf)
        stream = io.BytesIO()
        torch.save(leaf, stream)
        stream.seek(0)
        return stream

    def _read_arrays(self, leaf: Any) -> Any:
        """A plain value whose arrays and long bytes are read."""
        if isinstance(leaf, _Stored):
            room = Room(self._manifest.shared.entries[leaf.number])
            self._fill({leaf.number: [room]})
            return room.leaf()
        if isinstance(leaf, dict):
            return {key: self._read_arrays(value) for key, value in leaf.items()}
        if isinstance(leaf, list | tuple):
            return type(leaf)(self._read_arrays(value) for value in leaf)
        return leaf


class _Stored:
    """Stands for an array or bytes whose entry has this number."""

    def __init__(self, number: int) -> None:
        self.number = number


def _with_placeholders(manifest: Manifest) -> tuple[dict[str, Any], dict[int, int]]:
    """The tracked objects' states with empty tensors for the stored ones, and their numbers by the
    tensors' ids."""
    leaves: list[Any] = []
    for number, entry in enumerate(manifest.shared.entries):
        if entry.kind == "tensor":
            dtype = getattr(torch, entry.dtype)
            leaves.append(torch.empty(entry.shape, dtype=dtype, device="meta"))
        else:
            leaves.append(_Stored(number))
    tree = decode(manifest.shared.structure, leaves)
    tracked: dict[str, Any] = tree.get("tracked", tree)
    return tracked, {id(leaf): number for number, leaf in enumerate(leaves)}
