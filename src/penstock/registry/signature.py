"""What a model takes and gives: names, dtypes, shapes; and the check of arrays against them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean

BATCH = -1  # in a shape: any number of rows


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """dtype  NumPy's name: "float32", "int64", "uint8", "bool", …
    shape  sizes, -1 where the batch goes (and nowhere else for inputs: always the first)
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        sizes = ", ".join("B" if size == BATCH else str(size) for size in self.shape)
        return f'"{self.name}" {self.dtype} [{sizes}]'


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs in the order of the model's own parameters, outputs in the order it returns them."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def check(self, given: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """The arrays as the model takes them: contiguous, in the signature's order.

        given  name -> array-like. Raises BadInput for a name that is missing or too much, another
               dtype or shape, or batches of different length. Nothing is cast: a silent cast from
               0..255 to 0..1 is the kind of mistake that a signature is for.
        """
        names = [spec.name for spec in self.inputs]
        for name in given:
            if name not in names:
                raise BadInput(
                    f'the model has no input "{name}"',
                    did_you_mean(name, names),
                    input=name,
                    inputs=names,
                )
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for spec in self.inputs:
            if spec.name not in given:
                raise BadInput(
                    f"input {spec} is missing",
                    f"Pass all of: {', '.join(names)}.",
                    input=spec.name,
                    inputs=names,
                )
            arrays[spec.name] = _fitting(spec, given[spec.name])
        _refuse_uneven(arrays)
        return arrays


def _fitting(spec: TensorSpec, value: Any) -> np.ndarray[Any, Any]:
    try:
        array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
    except ValueError:  # rows of different lengths
        raise BadInput(
            f"input {spec} was given rows of different shapes",
            "Pass one array, or nested lists of equal lengths.",
            input=spec.name,
        ) from None
    if array.dtype.name != spec.dtype:
        raise BadInput(
            f"input {spec} was given {array.dtype.name}",
            f'Convert it as training did, e.g. {spec.name}.astype("{spec.dtype}").',
            input=spec.name,
            wanted=spec.dtype,
            got=array.dtype.name,
        )
    fits = array.ndim == len(spec.shape) and all(
        wanted in (BATCH, size) for wanted, size in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        hint = "The first axis is the batch: pass rows[None] for a single row."
        raise BadInput(
            f"input {spec} was given shape {list(array.shape)}",
            hint if array.shape == spec.shape[1:] else f"Pass {spec}, where B is any length.",
            input=spec.name,
            wanted=list(spec.shape),
            got=list(array.shape),
        )
    return array


def _refuse_uneven(arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    rows = {name: len(array) for name, array in arrays.items()}
    if len(set(rows.values())) > 1:
        raise BadInput(
            "the inputs have different numbers of rows: "
            + ", ".join(f"{name} {count}" for name, count in rows.items()),
            "Give every input the same number of rows.",
            rows=rows,
        )
