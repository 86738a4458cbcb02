"""The norm of gradients that lie over the ranks, and clipping by it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from penstock.checkpoints import is_distributed

_EPSILON = 1e-6  # as torch.nn.utils.clip_grad_norm_ has it


def norm_of(gradients: list[torch.Tensor], world_size: int, differ: bool) -> torch.Tensor:
    """[], of all of every gradient and equal on all ranks.

    differ   ranks may have other gradients, or other parts of them: the norm is agreed on
    """
    apart = differ and world_size > 1
    if apart or any(is_distributed(each) for each in gradients):
        return _agreed(_over_meshes(gradients), world_size)
    return _norm(gradients)


def clip_(gradients: list[torch.Tensor], norm: float, clip: float, dtype: torch.dtype) -> None:
    """Scale the gradients in place so that their norm is at most `clip`.

    norm   what it is, finite
    dtype  that it was computed in
    Bit for bit what torch.nn.utils.clip_grad_norm_ does in float32 and float64. There the factor is
    a tensor, and gradients are multiplied by it also when it is 1.
    """
    exact = np.float64 if dtype == torch.float64 else np.float32
    factor = float(exact(clip) * (exact(1) / (exact(norm) + exact(_EPSILON))))
    if factor < 1:
        local: Any = [each.to_local() if is_distributed(each) else each for each in gradients]
        torch._foreach_mul_(local, factor)


def _norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    """Those of one kind without the sorting by kind that torch's own function does."""
    if not gradients:
        return torch.tensor(0.0)
    if len({(each.device, each.dtype) for each in gradients}) > 1:
        return torch.nn.utils.get_total_norm(gradients)
    found: torch.Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2.0)))
    return found


def _over_meshes(gradients: list[torch.Tensor]) -> torch.Tensor:
    """Those of one mesh are one collective operation."""
    by_mesh: dict[Any, list[torch.Tensor]] = {}
    for each in gradients:
        mesh = each.device_mesh if is_distributed(each) else None
        by_mesh.setdefault(mesh, []).append(each)
    norms = []
    for mesh, group in by_mesh.items():
        norm: Any = torch.nn.utils.get_total_norm(group)
        norms.append(norm if mesh is None else norm.full_tensor())
    if not norms:
        return torch.tensor(0.0)
    device = norms[0].device
    apart = torch.stack([norm.to(device).float() for norm in norms])
    total: torch.Tensor = torch.linalg.vector_norm(apart)
    return total


def _agreed(norm: torch.Tensor, world_size: int) -> torch.Tensor:
    """One for all ranks: the first that is not finite, or that of rank 0."""
    if world_size == 1:
        return norm
    found = [torch.empty_like(norm) for _ in range(world_size)]
    dist.all_gather(found, norm)
    values = torch.stack(found)
    first: torch.Tensor = values[(~torch.isfinite(values)).int().argmax()]
    return first
