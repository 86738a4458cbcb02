"""A sharded model whole again, for a package: its class and attributes, all ranks' weights."""

from __future__ import annotations

import copy
from typing import Any

import torch

from penstock.base.errors import CannotTravel
from penstock.checkpoints import is_distributed
from penstock.checkpoints.sharding import identity


class Skeleton:
    """A model as it was before it was put into shards, without its weights.

    Made beforehand, because a sharded model can neither be copied nor be put together again.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        """A model that cannot be copied is noted, and refused when it is published."""
        self._copy: torch.nn.Module | None = None
        self._why = ""
        memo: dict[int, Any] = {}
        for tensor in [*model.parameters(), *model.buffers()]:
            empty = torch.empty_like(tensor, device="meta")
            if isinstance(tensor, torch.nn.Parameter):
                empty = torch.nn.Parameter(empty, requires_grad=tensor.requires_grad)
            memo[id(tensor)] = empty
        try:
            self._copy = copy.deepcopy(model, memo)
        except Exception as error:  # noqa: BLE001 - whatever attributes of a user's model raise
            self._why = f"{type(error).__name__}: {error}"

    def whole(self, model: torch.nn.Module, keep: bool) -> torch.nn.Module:
        """The model with all weights on the CPU; a collective call.

        keep  whether this rank wants it: on others the weights are let go as they come, and what is
              returned has none
        Raises CannotTravel.
        """
        gathered = _gathered(model.state_dict(), keep)
        extra = {name: value.detach().cpu() for name, value in model.named_buffers()}
        if self._copy is None:
            raise CannotTravel(
                f"{type(model).__name__} cannot be copied: {self._why}",
                "Keep only modules, tensors and plain values as attributes of the model.",
            )
        plain = copy.deepcopy(self._copy)
        if not keep:
            return plain
        for name, value in extra.items():  # those that no state dictionary has
            owner, _, last = name.rpartition(".")
            plain.get_submodule(owner)._buffers[last] = value
        plain.load_state_dict(gathered, assign=True)
        return plain.train(model.training)


def _gathered(state: dict[str, Any], keep: bool) -> dict[str, Any]:
    """The whole tensors, on the CPU; one that has several names is one object."""
    known: dict[Any, Any] = {}
    found = {}
    for name, value in state.items():
        if is_distributed(value):
            same = identity(value)
            if same not in known:
                full = value.full_tensor()
                known[same] = full.cpu() if keep else None
            found[name] = known[same]
        else:
            found[name] = value.detach().cpu() if isinstance(value, torch.Tensor) else value
    return found
