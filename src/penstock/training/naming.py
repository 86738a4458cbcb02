"""Names of a module's tensors in checkpoints: as if it had never been compiled.

`torch.compile` puts a module, or one inside it, into another whose only child is `_orig_mod`, and
so into every name. Compiled or not, the state is the same: a checkpoint of either fits both.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

_COMPILED = "_orig_mod"


def plain(name: str) -> str:
    """
    >>> plain("_orig_mod.blocks.0._orig_mod.weight")
    'blocks.0.weight'
    """
    return ".".join(part for part in name.split(".") if part != _COMPILED)


def state_of(module: torch.nn.Module) -> dict[str, Any]:
    """`state_dict()` under plain names; the tensors are the module's own."""
    state: dict[str, Any] = module.state_dict()
    if not any(_COMPILED in name for name in state):
        return state
    return OrderedDict((plain(name), value) for name, value in state.items())


def load(module: torch.nn.Module, state: Mapping[str, Any], strict: bool = True) -> None:
    """As `load_state_dict`, of names with or without it. Raises what that raises."""
    own = {plain(name): name for name in module.state_dict()}
    named = {own.get(plain(name), plain(name)): value for name, value in state.items()}
    module.load_state_dict(named, strict=strict)
