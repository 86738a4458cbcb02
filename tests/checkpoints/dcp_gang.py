"""Run as a script: gangs of gloo ranks save by torch.distributed.checkpoint, and load, in turn.

dcp_gang.py HOME [VERB NAME SIZE]...

save   each rank saves through Penstock's storage writer
load   each rank loads through its reader, and compares
die    as save; the last rank is killed before it has written
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from tests.checkpoints.mesh import Net
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from penstock.base.settings import load_settings
from penstock.checkpoints import is_distributed
from penstock.home.local import LocalHome


def state(world: int, seed: int) -> dict[str, Any]:
    """A model in shards with its optimiser after a step, a table cut by columns, plain values."""
    torch.manual_seed(seed)
    net = Net()
    table = torch.randn(5, 7)
    mesh = init_device_mesh("cpu", (world,))
    fully_shard(net.blocks, mesh=mesh)
    fully_shard(net, mesh=mesh)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter) * seed
    optimizer.step()
    return {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "columns": distribute_tensor(table, mesh, [Shard(1)]),
        "everywhere": distribute_tensor(table, mesh, [Replicate()]),
        "plain": table.clone(),
        "step": seed,
    }


def whole(tree: Any) -> Any:
    """The same with full tensors: all ranks take part."""
    if isinstance(tree, dict):
        return {key: whole(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [whole(value) for value in tree]
    return tree.full_tensor() if is_distributed(tree) else tree


def differs(a: Any, b: Any, path: str = "") -> str | None:
    """The first place where two trees are not equal to the last bit."""
    if isinstance(a, dict):
        gone = [str(key) for key in a.keys() ^ b.keys()]
        found = [differs(a[key], b[key], f"{path}.{key}") for key in a if key in b]
        return next((each for each in [*gone, *found] if each), None)
    if isinstance(a, list):
        found = [differs(x, y, f"{path}[{n}]") for n, (x, y) in enumerate(zip(a, b, strict=True))]
        return next((each for each in found if each), None)
    equal = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    return None if equal else path


def rank_of_gang(home: Path, verb: str, name: str, rank: int, world: int, store: str) -> None:
    shared = dist.FileStore(store, world)
    dist.init_process_group("gloo", store=shared, rank=rank, world_size=world)
    opened = LocalHome(load_settings(home, {}, home=home))
    if verb == "load":
        found = state(world, seed=1)
        dcp.load(found, storage_reader=opened.dcp_reader(name))
        place = differs(whole(found), whole(state(world, seed=3)))
        assert place is None, place
    else:
        mine = state(world, seed=3)
        writer = opened.dcp_writer(name, step=100)
        if verb == "die" and rank == world - 1:
            writer.write_data = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        dcp.save(mine, storage_writer=writer)
    opened.close()
    dist.destroy_process_group()


def gang(home: Path, verb: str, name: str, world: int) -> list[int]:
    """How each rank ended."""
    children = []
    store = tempfile.mktemp()
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                rank_of_gang(home, verb, name, rank, world, store)
                code = 0
            except Exception:  # noqa: BLE001 - this process is a copy, and ends here
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        children.append(pid)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, *gangs = sys.argv[1:]
    for verb, name, size in zip(*[iter(gangs)] * 3, strict=True):
        print("ENDED", *gang(Path(folder), verb, name, int(size)), flush=True)
