"""Micro-batches: a global batch in V fixed parts, of which each of W ranks takes V / W in a row.

What a part is depends on V alone. Random numbers are keyed by step and part, so dropout draws the
same for a part whichever rank has it. With reduction="mean" gradients are added up on each rank and
averaged over the ranks, whose number then shows in the last bits. With "ordered" the gradients of
the parts are summed in one binary tree over all V of them: its lower levels on each rank, its upper
ones by exchanging with one partner a level (recursive doubling, Thakur et al. 2005, "Optimization
of Collective Communication Operations in MPICH"). A sum of two is the same in either order, so all
ranks get the same bits, and so does any number of ranks that is a power of two.

Letters: V micro-batches of a global batch, W ranks, n = V / W.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.distributed as dist

from penstock.base.errors import BadInput
from penstock.checkpoints import is_distributed
from penstock.training import randomness
from penstock.training.distributing import synchronising

Reduction = Literal["mean", "ordered"]
Gradients = list[torch.Tensor | None]
_BUCKET = 32 << 20  # bytes that are exchanged at once


class MicroBatches:
    """One rank's place within the global batch of the current step."""

    def __init__(
        self, count: int, reduction: Reduction, rank: int, world_size: int, seed: int
    ) -> None:
        """Raises BadInput for a V that W ranks cannot share."""
        _check(count, reduction, world_size)
        self.ordered = reduction == "ordered"
        self.each = count // world_size  # n
        self._count, self._rank, self._world = count, rank, world_size
        self._seed = seed
        self._at = 0
        self._sums: dict[int, TreeSum] = {}

    @property
    def last(self) -> bool:
        """Whether the part at hand is this rank's last one of the step."""
        return self._at == self.each - 1

    def parts(self, batch: Any, step: int, models: Sequence[torch.nn.Module]) -> Iterator[Any]:
        """This rank's micro-batches of one step. Raises BadInput where its rows cannot be shared.

        step    keys the random numbers of each part
        models  those in DDP exchange gradients with the last part, or never ("ordered")
        """
        rows = rows_of(batch)
        if rows is not None and rows % self.each:
            raise BadInput(
                f"{rows} rows of a rank do not divide into {self.each} micro-batches",
                "Take a batch_size that micro_batches divides, and drop_last=True.",
                rows=rows,
            )
        for number in range(self.each):
            self._at = number
            for model in models:
                synchronising(model, self.last and not self.ordered)
            randomness.seed_all(self._seed, "micro", step, self._rank * self.each + number)
            yield batch if rows is None else _cut(batch, number, rows // self.each)

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss whose gradients are added up: they are divided later where they are ordered."""
        return loss if self.ordered else loss / self.each

    def complete(self, optimizer: torch.optim.Optimizer) -> bool:
        """Called once a part: whether the gradients of the whole global batch are in place."""
        if not self.ordered:
            return self.last
        _check_whole(optimizer)
        if id(optimizer) not in self._sums:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self._sums[id(optimizer)] = TreeSum(parameters)
        total = self._sums[id(optimizer)]
        total.add()
        if self.last:
            total.finish(self._count, self._rank, self._world)
        return self.last


class TreeSum:
    """Gradients of 2^k parts, summed pairwise: ((0 + 1) + (2 + 3)) + … It holds at most k + 1 sets
    of gradients at a time."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self._parameters = parameters
        self._sums: list[tuple[int, Gradients]] = []  # (level, sum of 2^level parts)

    def add(self) -> None:
        """Take the gradients that the parameters have now; they have none afterwards."""
        level, found = 0, [p.grad for p in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        while self._sums and self._sums[-1][0] == level:
            _, before = self._sums.pop()
            found = [_plus(a, b) for a, b in zip(before, found, strict=True)]
            level += 1
        self._sums.append((level, found))

    def finish(self, count: int, rank: int, world_size: int) -> None:
        """Give the parameters the mean over all `count` parts of all ranks."""
        ((_, found),) = self._sums
        self._sums = []
        if world_size > 1:
            found = _over_ranks(found, self._parameters, rank, world_size)
        for parameter, gradient in zip(self._parameters, found, strict=True):
            parameter.grad = None if gradient is None else gradient.mul_(1 / count)


class Means:
    """Scalars that were logged in the parts of one step: each is told once, as their mean."""

    def __init__(self) -> None:
        self._held: dict[str, list[float | torch.Tensor]] = {}

    @property
    def some(self) -> bool:
        return bool(self._held)

    def add(self, values: Mapping[str, float | torch.Tensor]) -> None:
        for name, value in values.items():
            kept = value.detach() if isinstance(value, torch.Tensor) else float(value)
            self._held.setdefault(name, []).append(kept)

    def take(self, names: Sequence[str] | None = None) -> dict[str, float | torch.Tensor]:
        """Means of these names, or of all; they begin anew. Waits for no device."""
        chosen = list(self._held) if names is None else names
        return {name: _mean(self._held.pop(name)) for name in chosen}


def _check(count: int, reduction: str, world_size: int) -> None:
    if reduction not in ("mean", "ordered"):
        raise BadInput(
            f'reduction="{reduction}" is none', 'Take "mean", or "ordered".', reduction=reduction
        )
    if count < 1 or count % world_size:
        raise BadInput(
            f"{count} micro-batches cannot be shared by {world_size} ranks",
            f"Take a multiple of {world_size}; one that more numbers of ranks divide lets you "
            "change workers later.",
            micro_batches=count,
            world_size=world_size,
        )
    if reduction == "ordered" and (count & (count - 1) or world_size & (world_size - 1)):
        raise BadInput(
            f'reduction="ordered" with {count} micro-batches on {world_size} ranks',
            "Both must be powers of two: the sum is a binary tree over the micro-batches.",
            micro_batches=count,
            world_size=world_size,
        )


def _check_whole(optimizer: torch.optim.Optimizer) -> None:
    for each in optimizer.param_groups:
        if any(is_distributed(parameter) for parameter in each["params"]):
            raise BadInput(
                'reduction="ordered" adds up whole gradients, and these lie over the ranks',
                'Take reduction="mean", or a model that is not sharded.',
            )


def rows_of(batch: Any) -> int | None:
    """Rows of a batch; None for what has none, such as the number of a step."""
    if isinstance(batch, Mapping):
        return next((n for n in map(rows_of, batch.values()) if n is not None), None)
    if isinstance(batch, tuple):
        return next((n for n in map(rows_of, batch) if n is not None), None)
    if isinstance(batch, list) or getattr(batch, "ndim", 0) > 0:
        return len(batch)
    return None


def _cut(batch: Any, number: int, rows: int) -> Any:
    """Rows number * rows … of every value; views of tensors."""
    if isinstance(batch, Mapping):
        return {name: _cut(value, number, rows) for name, value in batch.items()}
    if isinstance(batch, tuple):
        found = [_cut(value, number, rows) for value in batch]
        return type(batch)(*found) if hasattr(batch, "_fields") else tuple(found)
    if isinstance(batch, list) or getattr(batch, "ndim", 0) > 0:
        return batch[number * rows : (number + 1) * rows]
    return batch


def _plus(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a.add_(b)


def _over_ranks(
    found: Gradients, parameters: Sequence[torch.nn.Parameter], rank: int, world_size: int
) -> Gradients:
    """The upper levels of the tree. A parameter without a gradient on any rank keeps none."""
    device = parameters[0].device
    there = torch.tensor([each is not None for each in found], dtype=torch.uint8, device=device)
    dist.all_reduce(there, dist.ReduceOp.MAX)
    wanted = [number for number, has in enumerate(there.tolist()) if has]
    for numbers in _buckets(wanted, parameters):
        parts = [_or_zeros(found[number], parameters[number]) for number in numbers]
        flat = torch.cat([part.reshape(-1) for part in parts])
        theirs = torch.empty_like(flat)
        distance = 1
        while distance < world_size:
            _exchange(flat, theirs, rank ^ distance)
            flat.add_(theirs)
            distance *= 2
        sizes = [part.numel() for part in parts]
        for number, part, piece in zip(numbers, parts, torch.split(flat, sizes), strict=True):
            found[number] = piece.view_as(part)
    return found


def _buckets(
    numbers: Sequence[int], parameters: Sequence[torch.nn.Parameter]
) -> Iterator[list[int]]:
    """Neighbouring parameters of one dtype, of a bounded size together."""
    bucket: list[int] = []
    size = 0
    for number in numbers:
        parameter = parameters[number]
        other = bool(bucket) and parameters[bucket[0]].dtype != parameter.dtype
        if bucket and (other or size + parameter.nbytes > _BUCKET):
            yield bucket
            bucket, size = [], 0
        bucket.append(number)
        size += parameter.nbytes
    if bucket:
        yield bucket


def _or_zeros(gradient: torch.Tensor | None, parameter: torch.nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if gradient is None else gradient


def _exchange(mine: torch.Tensor, theirs: torch.Tensor, partner: int) -> None:
    wishes = [dist.P2POp(dist.isend, mine, partner), dist.P2POp(dist.irecv, theirs, partner)]
    for work in dist.batch_isend_irecv(wishes):
        work.wait()


def _mean(values: list[float | torch.Tensor]) -> float | torch.Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total / len(values)
