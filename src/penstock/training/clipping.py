"""The norm of gradients that lie over the ranks, and clipping by it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from penstock.checkpoints import is_distributed


def clip_(
    parameters: Sequence[torch.nn.Parameter], clip: float | None, world_size: int, differ: bool
) -> torch.Tensor:
    """Scale the gradients in place so that their norm is at most `clip`; the norm before.

    clip     None: they stay as they are
    differ   ranks may have other gradients, or other parts of them: the norm is agreed on
    returns  [], of all of every gradient and equal on all ranks
    """
    limit = math.inf if clip is None else clip
    gradients = [each.grad for each in parameters if each.grad is not None]
    sharded = any(is_distributed(each) for each in gradients)
    if not sharded and (world_size == 1 or not differ):
        return torch.nn.utils.clip_grad_norm_(parameters, limit)
    total = _agreed(_norm(gradients), world_size)
    factor = torch.clamp(limit / (total + 1e-6), max=1.0)
    for each in gradients:
        local: Any = each.to_local() if is_distributed(each) else each
        local.mul_(factor.to(local.device, local.dtype))
    return total


def _norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Over all of every gradient. Those of one mesh are one collective operation."""
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
