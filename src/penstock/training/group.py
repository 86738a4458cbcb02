"""The process group of a gang, and gradients that are summed in the order of the ranks.

DistributedDataParallel lays gradients into buckets and rebuilds the buckets after its first
backward. A ring all-reduce adds the ranks' values in an order that depends on where in the bucket
a value lies, so with three ranks or more a resumed run, whose first step uses the first layout
again, would differ in the last bits. The hook below adds in the order of the ranks wherever a
value lies. With two ranks the order does not matter (a + b = b + a), and DDP's own path is used.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from penstock.base.errors import BadInput
from penstock.checkpoints import is_distributed
from penstock.jobs.environment import settle_here
from penstock.jobs.link import Link

_TIMEOUT = timedelta(minutes=30)  # a gang is replaced on a death long before


def join(link: Link, rendezvous: dict[str, Any], listener: int | None) -> None:
    """Join the gang's group. Rank 0 hosts the store on a socket that the agent already listens
    on, so no rank can come too early, and no port is ever taken by somebody else."""
    if link.world_size == 1:
        at_least_alone(link.world_size)
        return
    store = dist.TCPStore(  # type: ignore[attr-defined]
        rendezvous["host"],
        rendezvous["port"],
        link.world_size,
        is_master=link.rank == 0,
        timeout=timedelta(seconds=60),
        wait_for_workers=False,
        master_listen_fd=listener if link.rank == 0 else None,
    )
    join_over(store, link.rank, link.world_size, link.local[1])


def join_over(store: Any, rank: int, world_size: int, here: int) -> None:
    """Join a group whose ranks find each other in a store; `here` of them are on this machine."""
    settle_here(os.environ, one_machine=here == world_size)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.device_count() >= here else "gloo"
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=world_size, timeout=_TIMEOUT
    )


def check_joined(world_size: int) -> None:
    """Of a group that others made. Raises BadInput where its ranks can exchange nothing that lies
    on the CPU, as ours do to agree."""
    if world_size > 1 and dist.is_initialized() and "cpu:" not in dist.get_backend_config():
        raise BadInput(
            f"the process group ({dist.get_backend_config()}) has no backend for the CPU",
            'Make it with "cpu:gloo,cuda:nccl"; of Ray Train: TorchConfig(backend=…).',
        )


def device(index: int, here: int, claimed: dict[str, Any]) -> torch.device:
    """A GPU of its own where each of the ranks on this machine has one, else the CPU.

    claimed  of the payload: "device" as asked for, "named": the setting `devices` names the GPUs,
             "gpu": number of this process's own, of a run inside its script
    Raises BadInput where torch sees fewer GPUs than were claimed.
    """
    settle_here(os.environ)
    wanted = claimed.get("device", "auto")
    if wanted == "cpu" or (count := torch.cuda.device_count()) < here:
        if wanted == "cuda" and not claimed.get("named"):
            raise BadInput(
                f'device="cuda", and torch {torch.__version__} sees {count} GPUs',
                "Install a torch build for this machine's driver, or ask for the CPU.",
            )
        return torch.device("cpu")
    index = claimed.get("gpu", index)
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def at_least_alone(world_size: int) -> None:
    """A group of one, where this process is in none: meshes and shards want one at any number of
    ranks."""
    if world_size == 1 and not dist.is_initialized():
        settle_here(os.environ, one_machine=True)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)


def distribute(
    model: torch.nn.Module, device: torch.device, world_size: int, **options: Any
) -> torch.nn.Module:
    """Move to the device; several ranks: wrap in DDP, which starts all from rank 0's weights."""
    model = model.to(device)
    if world_size == 1:
        return model
    ids = [device.index] if device.type == "cuda" else None
    wrapped = torch.nn.parallel.DistributedDataParallel(model, device_ids=ids, **options)
    if world_size > 2 and device.type == "cpu":
        wrapped.register_comm_hook(world_size, _mean_in_rank_order)
    return wrapped


# No annotations: DDP compares them with its own classes, not with their names.
def _mean_in_rank_order(world_size, bucket):  # type: ignore[no-untyped-def]
    """A DDP communication hook: the mean of a bucket over the ranks, added from rank 0 up."""
    mine = bucket.buffer()
    parts = [torch.empty_like(mine) for _ in range(world_size)]
    work = dist.all_gather(parts, mine, async_op=True)

    def add(_: Any) -> torch.Tensor:
        total = parts[0]
        for part in parts[1:]:
            total.add_(part)
        return total.div_(world_size)

    return work.get_future().then(add)


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The user's module inside DDP and torch.compile, in either order."""
    while True:
        if isinstance(model, torch.nn.parallel.DistributedDataParallel):
            model = model.module
        elif is_compiled(model):
            model = model.get_submodule("_orig_mod")
        else:
            return model


def is_compiled(model: torch.nn.Module) -> bool:
    """Whether torch.compile returned it; a module that compiled itself in place is itself."""
    return "_orig_mod" in model._modules


def equal_buffers(models: list[torch.nn.Module], world_size: int) -> None:
    """Rank 0's buffers (running means and the like) for all, as DDP does before a forward."""
    if world_size == 1:
        return
    for model in models:
        for buffer in unwrap(model).buffers():
            if not is_distributed(buffer):  # of one that is, each rank has its own part
                dist.broadcast(buffer, 0)


def total(values: list[float], world_size: int) -> list[float]:
    """Sums over all ranks in float64, added in the order of the ranks."""
    if world_size == 1:
        return values
    mine = torch.tensor(values, dtype=torch.float64)
    parts = [torch.empty_like(mine) for _ in range(world_size)]
    dist.all_gather(parts, mine)
    found = parts[0]
    for part in parts[1:]:
        found = found + part
    return [float(value) for value in found]


def leave(world_size: int) -> None:
    """Wait for the others, so that rank 0, the store's host, is not gone before they are done."""
    if world_size > 1:
        dist.barrier()
