"""Which entries of an example batch go into `forward`, and under which of its parameters.

The rule, in order:
1. `inputs=[…]`: exactly these. By name where all of them are parameters of `forward`; else in
   order, to its first parameters.
2. Every entry whose name is a parameter of `forward`, when that covers all that it requires.
3. `forward` requires one parameter, and one entry is left when integer vectors of shape [B]
   (labels, ids) are put aside: that one.
Anything else is refused, and the error lists both sides.
A lone tensor goes to the first parameter, a tuple to the first ones; they take their names.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter
from typing import TYPE_CHECKING, Any

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.registry.manifest import Place

if TYPE_CHECKING:
    from torch import Tensor, nn

_NAMED = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class Bound:
    """One input. rows: the example's, [B, …], on the CPU, detached."""

    place: Place
    rows: Tensor


def bind(model: nn.Module, example: Any, inputs: Sequence[str] | None = None) -> list[Bound]:
    """The model's inputs, in the order of `forward`'s parameters.

    example  dict of tensors (other entries are left aside), a tensor, or a tuple of tensors
    Raises BadInput when the rule above finds no answer, or the rows do not fit together.
    """
    parameters = [
        each for each in inspect.signature(model.forward).parameters.values() if each.kind in _NAMED
    ]
    if not parameters:
        raise BadInput(
            f"{type(model).__name__}.forward names none of its parameters",
            "Write forward(self, image, …): a package names its inputs after them.",
        )
    entries = _entries(example, parameters)
    chosen = _given(parameters, entries, inputs) if inputs else _found(parameters, entries)
    if chosen is None:
        raise _unclear(model, parameters, entries)
    bound = [
        Bound(Place(name, each.name, each.kind is Parameter.POSITIONAL_ONLY), entries[name])
        for each in parameters
        if (name := chosen.get(each.name)) is not None
    ]
    _check_rows(bound)
    return bound


def call(model: Any, places: Sequence[Place], rows: Sequence[Tensor]) -> Any:
    """Run a module, or what torch.export made of it, with `rows` in `places`."""
    args, kwargs = arguments(places, rows)
    return model(*args, **kwargs)


def arguments(
    places: Sequence[Place], rows: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Positional and keyword arguments of one call."""
    pairs = list(zip(places, rows, strict=True))
    args = tuple(tensor for place, tensor in pairs if place.positional)
    return args, {place.parameter: tensor for place, tensor in pairs if not place.positional}


def _entries(example: Any, parameters: Sequence[Parameter]) -> dict[str, Tensor]:
    import numpy as np
    import torch

    if isinstance(example, torch.Tensor | np.ndarray):
        example = {parameters[0].name: example}
    elif isinstance(example, list | tuple):
        if len(example) > len(parameters):
            raise BadInput(
                f"the example has {len(example)} entries, forward takes {len(parameters)}",
                "Pass a dict of tensors, and inputs=[…] for those that go into the model.",
            )
        example = {each.name: value for each, value in zip(parameters, example, strict=False)}
    if not isinstance(example, Mapping):
        raise BadInput(
            f"an example is a dict of tensors, not {type(example).__name__}",
            "Pass a batch as the model gets it, e.g. example=val.example().",
        )
    found: dict[str, Tensor] = {}
    for name, value in example.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            value = torch.from_numpy(np.ascontiguousarray(value))
        if isinstance(value, torch.Tensor):
            found[str(name)] = value.detach().cpu().contiguous()
    return found


def _given(
    parameters: Sequence[Parameter], entries: Mapping[str, Tensor], inputs: Sequence[str]
) -> dict[str, str]:
    for name in inputs:
        if name not in entries:
            raise BadInput(
                f'inputs names "{name}", but the example has no tensor of that name',
                did_you_mean(name, entries),
                inputs=list(inputs),
                example=list(entries),
            )
    names = [each.name for each in parameters]
    if len(inputs) > len(names):
        raise BadInput(
            f"inputs names {len(inputs)} tensors, forward takes {len(names)}: {', '.join(names)}",
            "Name one tensor for each parameter.",
            inputs=list(inputs),
            parameters=names,
        )
    if set(inputs) <= set(names):
        return {name: name for name in inputs}
    return dict(zip(names, inputs, strict=False))


def _found(parameters: Sequence[Parameter], entries: Mapping[str, Tensor]) -> dict[str, str] | None:
    required = [each.name for each in parameters if each.default is Parameter.empty]
    same = {each.name: each.name for each in parameters if each.name in entries}
    if same and all(name in same for name in required):
        return same
    left = [name for name, tensor in entries.items() if not _label_like(tensor)]
    if len(left) == 1 and (len(required) == 1 or len(parameters) == 1):
        return {(required or [parameters[0].name])[0]: left[0]}
    return None


def _label_like(tensor: Tensor) -> bool:
    return tensor.ndim <= 1 and not tensor.is_floating_point() and not tensor.is_complex()


def _unclear(
    model: nn.Module, parameters: Sequence[Parameter], entries: Mapping[str, Tensor]
) -> BadInput:
    takes = [each.name for each in parameters]
    has = [f"{name} {list(tensor.shape)}" for name, tensor in entries.items()]
    return BadInput(
        f"which tensors go into {type(model).__name__}? forward takes {', '.join(takes)}; the "
        f"example has {', '.join(has) or 'no tensors'}",
        f'Say it: inputs=["{next(iter(entries), "image")}"], in the order of forward.',
        parameters=takes,
        example=list(entries),
    )


def _check_rows(bound: Sequence[Bound]) -> None:
    shapes = {each.place.name: list(each.rows.shape) for each in bound}
    rows = {each.rows.shape[0] if each.rows.ndim else 0 for each in bound}
    if len(rows) != 1 or 0 in rows:
        raise BadInput(
            "the example's tensors do not share a batch axis with at least one row: "
            + ", ".join(f"{name} {shape}" for name, shape in shapes.items()),
            "The first axis of every input is the batch.",
            shapes=shapes,
        )
