"""The example run through a model before it is packaged: what it takes, what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.base.errors import BadInput
from penstock.registry.apart import first_line
from penstock.registry.binding import bind, call
from penstock.registry.manifest import Place
from penstock.registry.outputs import dtype, named
from penstock.registry.signature import BATCH, Signature, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Trial:
    """signature  names, dtypes, shapes; -1 where a size follows the batch
    places     where each input goes in a call
    rows       the inputs: the example, repeated where it has one row only, because tracing takes
               a batch of one for a constant
    outputs    what the model itself gave for `rows`, by name
    given      rows of the example as it was passed
    """

    signature: Signature
    places: tuple[Place, ...]
    rows: tuple[Tensor, ...]
    outputs: dict[str, np.ndarray[Any, Any]]
    given: int

    @property
    def feeds(self) -> dict[str, np.ndarray[Any, Any]]:
        """The inputs by name, as NumPy arrays."""
        return {
            place.name: rows.numpy() for place, rows in zip(self.places, self.rows, strict=True)
        }


def attempt(model: nn.Module, example: Any, inputs: Sequence[str] | None) -> Trial:
    """Run `model` at two batch sizes, to see which sizes of its outputs follow the batch.

    Raises BadInput: the example cannot be bound, the model raises, or returns no tensors.
    """
    import torch

    bound = bind(model, example, inputs)
    places = tuple(each.place for each in bound)
    given = len(bound[0].rows)
    rows = [each.rows if given > 1 else torch.cat([each.rows, each.rows]) for each in bound]
    outputs = _run(model, places, rows)
    more = _run(model, places, [torch.cat([each, each[:1]]) for each in rows])
    taken = tuple(
        TensorSpec(
            each.place.name, dtype(each.place.name, each.rows), (BATCH, *each.rows.shape[1:])
        )
        for each in bound
    )
    given_back = tuple(_output(name, array, more) for name, array in outputs.items())
    return Trial(Signature(taken, given_back), places, tuple(rows), outputs, given)


def _run(
    model: nn.Module, places: Sequence[Place], rows: Sequence[Tensor]
) -> dict[str, np.ndarray[Any, Any]]:
    shapes = {place.name: list(each.shape) for place, each in zip(places, rows, strict=True)}
    try:
        result = call(model, places, rows)
    except Exception as error:
        shown = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise BadInput(
            f"the model does not run on the example ({shown}): {first_line(error)}",
            "Pass a batch as training does, and inputs=[…] for the tensors that go in.",
            shapes=shapes,
        ) from error
    return named(result, f"{type(model).__name__}.forward")


def _output(
    name: str, array: np.ndarray[Any, Any], more: Mapping[str, np.ndarray[Any, Any]]
) -> TensorSpec:
    other = more.get(name)
    if other is None or array.ndim != other.ndim or array.dtype != other.dtype:
        raise BadInput(
            f'output "{name}" is another one, or gone, for another batch size',
            "Return the same tensors for every batch; their first axis is the batch.",
            output=name,
        )
    pairs = zip(array.shape, other.shape, strict=True)
    shape = tuple(size if size == again else BATCH for size, again in pairs)
    return TensorSpec(name, array.dtype.name, shape)
