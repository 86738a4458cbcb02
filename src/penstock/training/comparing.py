"""Parameters that should be equal on all ranks, compared: a rank that went its own way is named.

Of each parameter the sum of its bit patterns, as an integer, is exchanged: 8 bytes, one pass over
its values. Two that differ in one bit always have other sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist

from penstock.base import units
from penstock.base.errors import RanksDiverged

_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def compare(models: Mapping[str, torch.nn.Module], world_size: int, step: int) -> None:
    """Hold all ranks' parameters against each other; a collective call.

    Raises RanksDiverged, the same on all ranks, naming ranks and parameters.
    """
    named = {
        f"{name}.{inner}": parameter
        for name, model in models.items()
        for inner, parameter in model.named_parameters()
    }
    if world_size == 1 or not named:
        return
    mine = torch.stack([_fingerprint(each) for each in named.values()])
    parts = [torch.empty_like(mine) for _ in range(world_size)]
    dist.all_gather(parts, mine)
    found = diverged(list(named), [part.tolist() for part in parts])
    if found:
        raise _error(found, len(named), world_size, step)


def diverged(names: Sequence[str], sums: Sequence[Sequence[int]]) -> dict[str, list[int]]:
    """Parameter -> ranks whose sum is not that of most ranks; of two halves the one with the
    lowest rank is right.

    sums  [rank][parameter]
    """
    found = {}
    for name, column in zip(names, zip(*sums, strict=True), strict=True):
        counts = Counter(column)  # keeps the order of the ranks, so the first of equals leads
        usual = max(counts, key=counts.__getitem__)
        if len(counts) > 1:
            found[name] = [rank for rank, each in enumerate(column) if each != usual]
    return found


def _fingerprint(parameter: torch.Tensor) -> torch.Tensor:
    values = parameter.detach()
    if values.is_complex():
        values = torch.view_as_real(values)
    bits = values.contiguous().view(_BITS[values.element_size()])
    return bits.sum(dtype=torch.int64)


def _error(
    found: Mapping[str, list[int]], parameters: int, world_size: int, step: int
) -> RanksDiverged:
    name, ranks = next(iter(found.items()))
    who = "ranks " if len(ranks) > 1 else "rank "
    who += ", ".join(map(str, ranks))
    others = "rank 0" if world_size == 2 else "the others"
    return RanksDiverged(
        f"{name} of {who} is not that of {others} after step {step} "
        f"({len(found)} of {units.show_count(parameters, 'parameter')} differ)",
        "Put models through run.distribute, change parameters only by run.step, and draw no random "
        "numbers for them after run.steps began; or compare_every=0, if they are meant to differ.",
        step=step,
        ranks=ranks,
        parameters=list(found)[:20],
    )
