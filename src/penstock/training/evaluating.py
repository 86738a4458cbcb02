"""What an evaluation within a training leaves as it was, and how its values are weighed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from penstock.training.micro import rows_of


def summed(
    function: Callable[[Any], Any], source: Iterable[Any], each: Callable[[], None]
) -> list[float]:
    """[sum, count] of what `function` gives for all batches of the source.

    each  called after each batch: an evaluation may be long, and is no hang
    """
    total = count = 0.0
    for batch in source:
        value, weight = _weighed(function(batch), batch)
        total += value
        count += weight
        each()
    return [total, count]


def _weighed(value: Any, batch: Any) -> tuple[float, float]:
    """(sum, count) of what an evaluation function gave for one batch."""
    if isinstance(value, torch.Tensor) and value.ndim > 0:
        return float(value.double().sum()), float(value.numel())
    rows = rows_of(batch)
    rows = 1 if rows is None else rows  # what has no rows counts as one
    return float(value) * rows, float(rows)


@contextmanager
def evaluating(models: list[torch.nn.Module]) -> Iterator[None]:
    """Eval mode inside. DDP's own exchange of buffers is off: ranks may see unequal numbers of
    batches, and one would wait for another for ever."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    syncing = [m for m in models if getattr(m, "broadcast_buffers", False)]
    for model in models:
        model.eval()
    for model in syncing:
        model.broadcast_buffers = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for model in syncing:
            model.broadcast_buffers = True  # type: ignore[assignment]


@contextmanager
def rewound(source: Any) -> Iterator[None]:
    """The whole source inside, whatever its cursor says; afterwards the cursor is as before."""
    if not hasattr(source, "load_state"):
        yield
        return
    state = source.state()
    source.load_state({**state, "next": 0})
    try:
        yield
    finally:
        source.load_state(state)
