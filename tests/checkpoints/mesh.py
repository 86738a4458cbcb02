"""Run as a script: gangs of several sizes hand one state on, each distributed in its own way.

mesh.py FOLDER SIZE...   forks a gang of each size in turn; a gang loads what the one before saved,
compares it with what it must be, and saves it again from its own shards.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

import penstock.checkpoints as ck
from penstock.blobs import open_blobs


class Net(torch.nn.Module):
    """Rows that no number of ranks divides, fewer rows than ranks, a buffer, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.Sequential(torch.nn.Linear(6, 7), torch.nn.Linear(7, 3))
        self.head = torch.nn.Linear(3, 2, bias=False)
        self.norm = torch.nn.BatchNorm1d(2)
        self.twin = self.head


def full() -> tuple[Net, torch.Tensor]:
    torch.manual_seed(11)
    return Net(), torch.randn(8, 12)


def state(world: int, seed: int) -> dict[str, Any]:
    """The tree as a gang of this size has it: FSDP (at 4 ranks with replicas), a table cut by
    columns, one in both directions, and one that is everywhere."""
    net, table = full()
    torch.manual_seed(seed)
    sizes = (2, 2) if world == 4 else (1, world)
    mesh = init_device_mesh("cpu", sizes, mesh_dim_names=("outer", "inner"))
    for layer in net.blocks:
        fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh["inner"])  # a slice: its twin holds the same
    return {
        "net": net.state_dict(),
        "table": distribute_tensor(table, mesh, [Replicate(), Shard(1)]),
        "both": distribute_tensor(table, mesh, [Shard(0), Shard(1)]),
        "everywhere": distribute_tensor(table, mesh, [Replicate(), Replicate()]),
        "plain": table,
    }


def rank_of_gang(folder: Path, rank: int, world: int, turn: int) -> None:
    store = dist.FileStore(str(folder / f"store-{turn}"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    blobs = open_blobs(f"file://{folder}/blobs")
    mine = state(world, turn)
    if turn:
        shardings = ck.shardings_in(mine, "shared")
        assert len(shardings) == 11, sorted(shardings)  # the twin has two names
        manifest = ck.read_manifest(blobs, (folder / f"manifest-{turn - 1}").read_text())
        found = ck.load(blobs, manifest, rank, world, lambda e: shardings.get(e.name))
        check(found.shared, mine)
        mine = found.shared
    plan = ck.plan(mine, {"rank": rank}, rank, world)
    buffer = memoryview(bytearray(plan.nbytes))
    plan.copy_into(buffer)
    part = ck.persist(buffer, plan.index, blobs)
    (folder / f"part-{turn}-{rank}").write_text(json.dumps(part))
    dist.destroy_process_group()


def check(found: dict[str, Any], mine: dict[str, Any]) -> None:
    """Equal to the last bit, and distributed as this gang's own state is."""
    net, table = full()
    wanted = {"net": net.state_dict(), **dict.fromkeys(found.keys() - {"net"}, table)}
    for name, value in {**found.pop("net"), **found}.items():
        like = wanted["net"].get(name, wanted.get(name))
        own = mine["net"].get(name, mine.get(name))
        if ck.is_distributed(own):
            assert (value.placements, value.device_mesh) == (own.placements, own.device_mesh), name
            assert value.to_local().shape == own.to_local().shape, name
            value = value.full_tensor()
        assert value.dtype == like.dtype and torch.equal(value, like), name
    found["net"] = {key: mine["net"][key] for key in mine["net"]}


def gang(folder: Path, world: int, turn: int) -> None:
    children = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                rank_of_gang(folder, rank, world, turn)
                code = 0
            finally:
                sys.stdout.flush()
                if code:
                    import traceback

                    traceback.print_exc()
                os._exit(code)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert codes == [0] * world, (world, codes)
    parts = [json.loads((folder / f"part-{turn}-{rank}").read_text()) for rank in range(world)]
    data, _ = ck.assemble("run-a", turn, 1, world, parts, {})
    blobs = open_blobs(f"file://{folder}/blobs")
    (folder / f"manifest-{turn}").write_text(blobs.put(data))
    manifest = ck.parse_manifest(data)
    stored = sum(p.nbytes for part in manifest.parts for p in part.pieces if p.tree == "shared")
    assert stored == sum(entry.nbytes for entry in manifest.shared.entries)
    print("GANG", world, stored, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for number, size in enumerate(sys.argv[2:]):
        gang(Path(sys.argv[1]), int(size), number)
