"""Which tensors only an optimiser's step changes: its parameters and its own state."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch


def steady(optimizers: Iterable[torch.optim.Optimizer]) -> Callable[[Any], bool]:
    """Whether a leaf of the tracked state is such a tensor, now. Leaves are known by where their
    memory begins, because state dictionaries hold detached aliases of parameters."""
    places: set[tuple[torch.device, int]] = set()
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            places.update(_place(parameter) for parameter in group["params"])
        for state in optimizer.state.values():
            tensors = (value for value in state.values() if isinstance(value, torch.Tensor))
            places.update(_place(value) for value in tensors)

    def is_steady(leaf: Any) -> bool:
        if not isinstance(leaf, torch.Tensor) or leaf.is_inference():  # which count no changes
            return False
        return _place(leaf) in places

    return is_steady


def _place(tensor: torch.Tensor) -> tuple[torch.device, int]:
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # a rank's own part
    return local.device, local.data_ptr()
