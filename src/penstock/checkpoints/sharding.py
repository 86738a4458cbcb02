"""Distributed tensors (DTensor): which part of the whole this rank holds, and the way back.

torch is looked up, never imported, on the way out: what is not loaded cannot be in a state.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from penstock.checkpoints.arrays import TORCH_DTYPES, Entry, cannot_travel
from penstock.checkpoints.boxes import Box, Shape, local_box, replica

if TYPE_CHECKING:
    import torch
    from torch.distributed.tensor import DTensor


@dataclass(frozen=True, slots=True)
class Sharding:
    """This rank's part of a distributed tensor.

    shape              of the whole
    box                this rank's part, maybe empty; None where it is no place of the mesh
    replica, replicas  which of those that hold the same part this rank is
    wrap               a local tensor of the box's sizes, on the CPU -> the distributed tensor
    """

    shape: Shape
    box: Box | None
    replica: int
    replicas: int
    wrap: Callable[[torch.Tensor], Any]

    def part_of(self, full: torch.Tensor) -> Any:
        """The distributed tensor that all ranks' parts of `full` make; nothing is exchanged."""
        if self.box is None:
            return self.wrap(full.new_empty(0))
        return self.wrap(full[self.box.slices].contiguous())


def is_distributed(value: Any) -> TypeGuard[DTensor]:
    """Whether it is a DTensor."""
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(value, tensors.DTensor)


def sharding_of(value: DTensor, name: str) -> Sharding:
    """How a DTensor lies over the ranks. Raises CannotTravel for placements that no box tells:
    partial sums, and strides of sharding over other sharding."""
    from torch.distributed.tensor import DTensor, Replicate, Shard

    mesh, shape = value.device_mesh, tuple(value.shape)
    dims: list[int | None] = []
    for placement in value.placements:
        if type(placement) is Shard:
            dims.append(placement.dim % max(1, len(shape)))
        elif type(placement) is Replicate:
            dims.append(None)
        else:
            raise cannot_travel(name, f"it is a DTensor placed by {placement}")
    local = value.to_local().detach()
    device, placements, stride = local.device, value.placements, value.stride()

    def wrap(part: torch.Tensor) -> Any:
        moved = part.to(device)
        return DTensor.from_local(
            moved, mesh, placements, run_check=False, shape=value.shape, stride=stride
        )

    place = mesh.get_coordinate()
    if place is None:
        return Sharding(shape, None, 0, 1, wrap)
    box = local_box(shape, mesh.shape, dims, place)
    number, count = replica(mesh.shape, dims, place)
    outer, outers = _outside(value, name)
    if tuple(local.shape) != box.sizes:
        raise cannot_travel(name, f"its local part is {list(local.shape)} and not {box.sizes}")
    return Sharding(shape, box, outer * count + number, outers * count, wrap)


def entry_of(value: DTensor, name: str) -> Entry:
    """Describe the whole tensor. Raises CannotTravel for dtypes that have no bytes."""
    dtype = str(value.dtype).removeprefix("torch.")
    local = value.to_local()
    if dtype not in TORCH_DTYPES or local.is_meta:
        raise cannot_travel(name, f"a {dtype} DTensor on {local.device} has no plain bytes")
    shape = tuple(value.shape)
    nbytes = math.prod(shape) * value.dtype.itemsize
    return Entry(
        name,
        "tensor",
        dtype,
        shape,
        nbytes,
        device=local.device.type,
        mesh=tuple(value.device_mesh.shape),
        placements=tuple(str(placement) for placement in value.placements),
    )


def identity(value: DTensor) -> tuple[Any, ...]:
    """What two views of one sharded memory share, also on a rank that holds none of it."""
    local = value.to_local()
    where = (local.untyped_storage()._cdata, local.storage_offset(), local.stride())
    return ("dtensor", value.dtype, tuple(value.shape), value.placements, value.device_mesh, *where)


def _outside(value: DTensor, name: str) -> tuple[int, int]:
    """(number, count) of this rank's mesh among those beside it: a mesh that is a slice of a larger
    one holds the same as the other slices. Raises CannotTravel where the slices are unknown."""
    mesh = value.device_mesh
    root = mesh._get_root_mesh()
    place = root.get_coordinate()
    if root is mesh or place is None or root.size() == mesh.size():
        return 0, 1
    names, inner = root.mesh_dim_names or (), set(mesh.mesh_dim_names or ())
    if not inner or not inner <= set(names):
        raise cannot_travel(name, "its mesh is a flattened slice of another, named apart from it")
    dims = [0 if each in inner else None for each in names]
    return replica(root.shape, dims, place)
