"""Parameters that should be equal on all ranks, compared: a rank that went its own way is named.

Of each parameter the sum of its bit patterns, as an integer, is exchanged: 8 bytes, one pass over
its values. Two that differ in one bit always have other sums. Of a sharded parameter only ranks
that hold the same part are compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist

from penstock.base import units
from penstock.base.errors import RanksDiverged
from penstock.checkpoints import Sharding, is_distributed, sharding_of
from penstock.checkpoints.boxes import span

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
    held = [sharding_of(p, n) if is_distributed(p) else None for n, p in named.items()]
    places = torch.tensor([_place(each) for each in held], dtype=mine.dtype, device=mine.device)
    both = torch.stack([mine, places])
    parts = [torch.empty_like(both) for _ in range(world_size)]
    dist.all_gather(parts, both)
    told = [part.tolist() for part in parts]
    found = diverged(list(named), [each[0] for each in told], [each[1] for each in told])
    if found:
        raise _error(found, len(named), world_size, step)


def diverged(
    names: Sequence[str],
    sums: Sequence[Sequence[int]],
    places: Sequence[Sequence[int]] | None = None,
) -> dict[str, list[int]]:
    """Parameter -> ranks whose sum is not that of most ranks; of two halves the one with the
    lowest rank is right.

    sums    [rank][parameter]
    places  [rank][parameter]: which part of a sharded parameter a rank holds; only ranks that hold
            the same are compared. None: all hold all
    """
    found: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        groups: dict[int, list[int]] = {}
        for rank in range(len(sums)):
            place = 0 if places is None else places[rank][number]
            groups.setdefault(place, []).append(rank)
        odd = [rank for ranks in groups.values() for rank in _odd(ranks, sums, number)]
        if odd:
            found[name] = sorted(odd)
    return found


def _odd(ranks: Sequence[int], sums: Sequence[Sequence[int]], number: int) -> list[int]:
    counts = Counter(sums[rank][number] for rank in ranks)  # in the order of the ranks, so that
    usual = max(counts, key=counts.__getitem__)  # the first of equals leads
    return [rank for rank in ranks if sums[rank][number] != usual]


def _place(sharding: Sharding | None) -> int:
    """Equal for the same part of a tensor: where it begins; it has no more than its first element
    in common with another."""
    if sharding is None or sharding.box is None or not sharding.box.volume:
        return -1 if sharding is not None else 0
    return span(sharding.shape, sharding.box)[0]


def _fingerprint(parameter: torch.Tensor) -> torch.Tensor:
    values: Any = parameter.detach()
    if is_distributed(values):
        values = values.to_local()
    if values.is_complex():
        values = torch.view_as_real(values)
    bits = values.contiguous().view(_BITS[values.element_size()])
    total: torch.Tensor = bits.sum(dtype=torch.int64)
    return total


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
