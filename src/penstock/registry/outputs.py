"""What a torch model returns, by name and as NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.base.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor


def named(result: Any, whose: str) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs by name: a tensor is "output", a dict keeps its names, a tuple counts.

    whose  for the error: what returned it. None among the outputs is left out.
    """
    import torch

    if isinstance(result, torch.Tensor):
        result = {"output": result}
    elif isinstance(result, tuple | list):
        result = {f"output_{index}": value for index, value in enumerate(result)}
    tensors = (
        {str(name): value for name, value in result.items() if value is not None}
        if isinstance(result, Mapping)
        else {}
    )
    if not tensors or not all(isinstance(each, torch.Tensor) for each in tensors.values()):
        raise BadInput(
            f"{whose} returns {type(result).__name__}, which has no signature",
            "Return a tensor, or a flat dict or tuple of tensors.",
        )
    for name, tensor in tensors.items():
        dtype(name, tensor)
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


def dtype(name: str, tensor: Tensor) -> str:
    """NumPy's name of a tensor's dtype. Raises BadInput where NumPy has none (bfloat16)."""
    try:
        return str(tensor.detach().reshape(-1)[:0].cpu().numpy().dtype.name)
    except TypeError:
        raise BadInput(
            f'"{name}" is {tensor.dtype}, which clients without torch cannot read',
            "Take and return float32 or another NumPy type; inside, do as you like.",
            tensor=name,
        ) from None
