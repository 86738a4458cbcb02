"""Samples become a batch, and a batch samples; in NumPy, without torch.

Letters: b samples of a batch, T the longest of some lists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penstock.base.errors import BadInput
from penstock.data.columns import Array, Values

PADDED = "is_padding"  # bool [b]: True where a row only fills up the last batch
MASK = "_pad_mask"  # COLUMN_pad_mask, bool [b, T]: True where a list is filled up


def samples_of(columns: Mapping[str, Values], start: int, stop: int) -> list[dict[str, Any]]:
    """Rows start..stop-1 of gathered columns, one dictionary each; arrays are views."""
    names = list(columns)
    cut = (columns[name][start:stop] for name in names)
    return [dict(zip(names, values, strict=True)) for values in zip(*cut, strict=True)]


def collated(samples: Sequence[Mapping[str, Any]]) -> dict[str, Values]:
    """{name: array [b, *shape]} where all values are arrays or numbers of one shape and dtype, else
    {name: list of b values}. Raises BadInput when samples differ in their names."""
    names = list(samples[0]) if samples else []
    for number, sample in enumerate(samples):
        if sample.keys() != samples[0].keys():
            raise BadInput(
                f"samples of one batch have different entries: {names} and, as number {number}, "
                f"{list(sample)}",
                "Let the map give the same names for every sample.",
            )
    return {name: stacked([sample[name] for sample in samples]) for name in names}


def stacked(values: list[Any]) -> Values:
    """Numbers and arrays of one shape and dtype as one array; a list of anything else."""
    first = values[0]
    if isinstance(first, str | bytes) or first is None:
        return values
    if isinstance(first, bool | int | float | np.generic):
        found = np.asarray(values)
        return found if found.dtype != object and found.ndim == 1 else values
    if not all(hasattr(each, "__array__") for each in values):
        return values
    arrays = [np.asarray(each) for each in values]
    if any(a.shape != arrays[0].shape or a.dtype != arrays[0].dtype for a in arrays):
        return arrays
    return np.stack(arrays) if arrays[0].dtype != object else values


def relisted(columns: Mapping[str, Values], before: Mapping[str, Values]) -> dict[str, Values]:
    """Lists that happen to be equally long in this batch, as lists again: whether there is a mask
    must not depend on the luck of a batch. Columns that are arrays [b, T] `before` a map stay."""

    def is_tensor(name: str) -> bool:
        was = before.get(name)
        return isinstance(was, np.ndarray) and was.ndim == 2

    return {
        name: list(values)
        if isinstance(values, np.ndarray) and values.ndim == 2 and not is_tensor(name)
        else values
        for name, values in columns.items()
    }


def padded(columns: Mapping[str, Values]) -> dict[str, Values]:
    """Lists of one-dimensional arrays filled up with zeros to the longest, [b, T], and their masks.

    A missing list is all padding.
    """
    found: dict[str, Values] = {}
    for name, values in columns.items():
        if not isinstance(values, list) or not _ragged(values):
            found[name] = values
            continue
        sizes = np.array([0 if each is None else len(each) for each in values], np.int64)
        there = [each for each in values if each is not None]
        out: Array = np.zeros((len(values), int(sizes.max(initial=0))), there[0].dtype)
        mask = np.arange(out.shape[1]) >= sizes[:, None]
        out[~mask] = np.concatenate(there)
        found[name], found[name + MASK] = out, mask
    return found


def _ragged(values: list[Any]) -> bool:
    there = [each for each in values if each is not None]
    return bool(there) and all(isinstance(each, np.ndarray) and each.ndim == 1 for each in there)


def weight(batch: Any) -> int:
    """Bytes of a batch, about."""
    if isinstance(batch, Mapping):
        return sum(map(weight, batch.values()))
    if isinstance(batch, list | tuple):
        if batch and isinstance(batch[0], str | bytes):
            return sum(map(len, batch)) + 64 * len(batch)
        return sum(map(weight, batch))
    return int(getattr(batch, "nbytes", 64))
