"""How the tensors of a model differ from those of a state that was meant for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from penstock.training import naming

_SHOWN = 4


def between(name: str, model: torch.nn.Module, state: Mapping[str, Any]) -> list[str]:
    """A line for each parameter or buffer that only one of them has, or that has two shapes."""
    here, there = tensors(naming.state_of(model)), tensors(state)
    lines = []
    for key in [*here, *(key for key in there if key not in here)]:
        if key not in there:
            lines.append(f"{name}.{key} {_shape(here[key])} is not there")
        elif key not in here:
            lines.append(f"{name}.{key} {_shape(there[key])} is only there")
        elif here[key].shape != there[key].shape:
            lines.append(f"{name}.{key} is {_shape(here[key])} here and {_shape(there[key])} there")
    return lines


def tensors(state: Any) -> dict[str, torch.Tensor]:
    if not isinstance(state, Mapping):
        return {}
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


def said(lines: list[str]) -> str:
    """All of them in one sentence, the first few by name."""
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return f"{len(lines)} of its parameters and buffers differ: {'; '.join(lines[:_SHOWN])}{more}"


def _shape(tensor: torch.Tensor) -> str:
    return str(list(tensor.shape))
