"""torch.distributed.checkpoint saves into Penstock's blobs; see `dcp` for the way back."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.distributed.checkpoint import metadata as dcp
from torch.distributed.checkpoint._nested_dict import unflatten_state_dict
from torch.distributed.checkpoint.planner import (
    SavePlan,
    SavePlanner,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from penstock.base.errors import CannotTravel
from penstock.blobs import Blobs
from penstock.checkpoints.arrays import TORCH_DTYPES, Entry, cannot_travel, torch_bytes
from penstock.checkpoints.boxes import Box, is_run, span
from penstock.checkpoints.layout import ALIGNMENT, FORMAT, Piece
from penstock.checkpoints.manifest import assemble
from penstock.checkpoints.state import encode, encode_key
from penstock.checkpoints.writer import persist

Commit = Callable[[bytes, list[str], int], None]


@dataclass(frozen=True, slots=True)
class _Share:
    """What the coordinator tells a rank: which part is its own, and every tensor there is."""

    rank: int
    world_size: int
    entries: tuple[Entry, ...]


class Writer(StorageWriter):
    """Writes each rank's items as one part, chunks hashed; the coordinator commits.

    run_id, step  whose checkpoint it becomes
    commit        called by the coordinator, once all parts are durable, with the manifest's bytes,
                  the digests of the parts' blobs, and the size of all in bytes
    Raises CannotTravel for values that JSON cannot hold, and what `blobs.put` raises.
    """

    def __init__(self, blobs: Blobs, run_id: str, step: int, commit: Commit) -> None:
        self._blobs, self._run_id, self._step, self._commit = blobs, run_id, step, commit

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """A writer is of one checkpoint: there is nothing to begin anew."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing to open."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Number all tensors; every rank is told all of them, so that all speak of the same."""
        entries: dict[str, Entry] = {}
        for plan in plans:
            for item in plan.items:
                if item.type != WriteItemType.BYTE_IO:
                    entries.setdefault(item.index.fqn, _entry(item))
        ordered = tuple(entries[name] for name in sorted(entries))
        return [
            replace(plan, storage_data=_Share(rank, len(plans), ordered))
            for rank, plan in enumerate(plans)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        share: _Share = plan.storage_data
        numbers = {entry.name: number for number, entry in enumerate(share.entries)}
        values: dict[str, Any] = {}
        pieces: list[Piece] = []
        flats: list[torch.Tensor] = []
        end = 0
        for item in plan.items:
            if item.type == WriteItemType.BYTE_IO:
                values[item.index.fqn] = _value(item, planner)
                continue
            number = numbers[_name(item)]
            tensor = planner.resolve_data(item)
            assert isinstance(tensor, torch.Tensor)
            if tensor.numel():
                offset = -(-end // ALIGNMENT) * ALIGNMENT
                pieces.append(_piece(item, share.entries[number], number, offset))
                flats.append(torch_bytes(tensor).cpu())
                end = offset + pieces[-1].nbytes
        buffer = bytearray(-(-end // ALIGNMENT) * ALIGNMENT)
        for piece, flat in zip(pieces, flats, strict=True):
            buffer[piece.offset : piece.offset + piece.nbytes] = flat.numpy().data
        part = persist(memoryview(buffer), _index(share, pieces, len(buffer)), self._blobs)
        told = {"part": part, "values": values}
        done: Future[list[WriteResult]] = Future()
        done.set_result([WriteResult(dcp.MetadataIndex("part"), part["nbytes"], told)])
        return done

    def finish(self, metadata: dcp.Metadata, results: list[list[WriteResult]]) -> None:
        """Assemble and commit. Raises what `assemble` and the commit raise."""
        told = [result.storage_data for each in results for result in each]
        parts = sorted((each["part"] for each in told), key=lambda part: int(part["rank"]))
        values = {name: value for each in told for name, value in each["values"].items()}
        entries = parts[0]["shared"]["entries"]
        parts[0]["shared"] = {
            "structure": _structure(metadata, values, [entry["name"] for entry in entries]),
            "entries": entries,
        }
        extra: dict[str, Any] = {"metrics": {}, "code": ""}
        manifest, refs = assemble(self._run_id, self._step, 0, len(parts), parts, extra)
        self._commit(manifest, refs, len(manifest) + sum(part["nbytes"] for part in parts))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return False  # never chosen by a path


_ROOT = "shared.tracked."


def _name(item: WriteItem) -> str:
    return _ROOT + item.index.fqn


def _entry(item: WriteItem) -> Entry:
    data, name = item.tensor_data, _name(item)
    assert data is not None
    dtype = str(data.properties.dtype).removeprefix("torch.")
    if dtype not in TORCH_DTYPES:
        raise cannot_travel(name, f"a {dtype} tensor has no plain bytes")
    shape = tuple(data.size)
    return Entry(name, "tensor", dtype, shape, math.prod(shape) * data.properties.dtype.itemsize)


def _piece(item: WriteItem, entry: Entry, number: int, offset: int) -> Piece:
    assert item.tensor_data is not None
    chunk = item.tensor_data.chunk
    box = Box(tuple(chunk.offsets), tuple(chunk.sizes))
    itemsize = entry.nbytes // math.prod(entry.shape)
    size = box.volume * itemsize
    if is_run(entry.shape, box):
        return Piece("shared", number, span(entry.shape, box)[0] * itemsize, offset, size)
    return Piece("shared", number, 0, offset, size, box)


def _value(item: WriteItem, planner: SavePlanner) -> Any:
    """A plain value's structure: the planner has made it bytes just now, in this process."""
    stream = planner.resolve_data(item)
    assert isinstance(stream, io.BytesIO)
    stream.seek(0)
    try:
        value = torch.load(stream, weights_only=True)
    except Exception as error:  # noqa: BLE001 - whatever unpickling raises
        raise cannot_travel(_name(item), str(error).splitlines()[0]) from None
    encoded = encode(value, _name(item))
    if encoded.entries:
        raise CannotTravel(
            f"{encoded.entries[0].name} is an array or long text of bytes among plain values",
            "Make it a tensor.",
        )
    return encoded.structure


def _index(share: _Share, pieces: Sequence[Piece], nbytes: int) -> dict[str, Any]:
    entries = [entry.as_dict() for entry in share.entries]
    return {
        "format": FORMAT,
        "rank": share.rank,
        "world_size": share.world_size,
        "nbytes": nbytes,
        "shared": {"structure": None, "entries": entries},
        "own": {"structure": None, "entries": []},
        "pieces": [piece.as_dict() for piece in pieces],
    }


@dataclass(frozen=True, slots=True)
class _Made:
    """A structure that is made already."""

    structure: Any


def _structure(metadata: dcp.Metadata, values: dict[str, Any], names: Sequence[str]) -> Any:
    """The whole tree's: {"tracked": …}, nested as DCP's planner flattened it."""
    leaves = {name: _Made(structure) for name, structure in values.items()}
    for number, name in enumerate(names):
        leaves[name.removeprefix(_ROOT)] = _Made({"entry": number})
    known = metadata.planner_data or {}
    ordered = [*(name for name in known if name in leaves), *(n for n in leaves if n not in known)]
    paths = {name: known.get(name, (name,)) for name in ordered}
    tree = unflatten_state_dict({name: leaves[name] for name in ordered}, paths)
    return _nested({"tracked": tree})


def _nested(tree: Any) -> Any:
    if isinstance(tree, _Made):
        return tree.structure
    if isinstance(tree, dict):
        return {"dict": [[encode_key(key), _nested(value)] for key, value in tree.items()]}
    return [_nested(value) for value in tree]
