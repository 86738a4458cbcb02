"""Keys of a unit's rows as a sorted run of hashes, and duplicates found by merging runs.

A run is one blob: where each of 256 buckets (by the first byte) ends, int64 [256]; then the hashes
in order, each the first 16 bytes of SHA-256(key in UTF-8); then the row of each, uint32. Equal
hashes are equal keys: nobody knows two texts with equal first halves of SHA-256.

Memory while merging: 20 bytes for each key of some buckets, about 16 million keys at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.blobs import Blobs
from penstock.data.keys import HASH, Hashes

_BUCKETS = 256
_AT_ONCE = 1 << 24  # keys

Rows = npt.NDArray[np.int64]


def put_run(blobs: Blobs, hashes: Hashes) -> str:
    """Store the run of a unit's keys, by their hashes in order of its rows; returns the digest."""
    order = _order(hashes)
    first = (hashes["high"] >> np.uint64(56)).astype(np.int64)
    ends = np.cumsum(np.bincount(first, minlength=_BUCKETS)).astype("<i8")
    rows = order.astype("<u4")
    return blobs.put(ends.tobytes() + hashes[order].tobytes() + rows.tobytes())


def _order(hashes: Hashes) -> npt.NDArray[np.int64]:
    """Equal first halves are next to never there: where none is, these say it alone, sooner."""
    high = hashes["high"].astype(np.uint64)
    order = np.argsort(high)
    there = high[order]
    if (there[1:] == there[:-1]).any():
        return np.lexsort((hashes["low"], high))
    return order


class Run:
    """One unit's run. rows: how many; start: number of its first row in the whole."""

    def __init__(self, blobs: Blobs, digest: str, rows: int, start: int) -> None:
        self._blobs, self._digest = blobs, digest
        self._rows, self._start = rows, start
        self._ends: Rows | None = None

    def part(self, first: int, last: int) -> tuple[npt.NDArray[Any], Rows]:
        """(hashes, numbers of their rows in the whole) of buckets first..last-1."""
        if self._ends is None:
            self._ends = np.frombuffer(self._blobs.read(self._digest, 0, 8 * _BUCKETS), "<i8")
        low = int(self._ends[first - 1]) if first else 0
        high = int(self._ends[last - 1])
        hashes = self._read(8 * _BUCKETS, low, high, HASH)
        rows = self._read(8 * _BUCKETS + HASH.itemsize * self._rows, low, high, np.dtype("<u4"))
        return hashes, rows.astype(np.int64) + self._start

    def _read(self, at: int, low: int, high: int, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        size = kind.itemsize
        return np.frombuffer(
            self._blobs.read(self._digest, at + low * size, (high - low) * size), kind
        )


def groups(runs: Sequence[Run], rows: int) -> Iterator[list[Rows]]:
    """Rows whose keys are equal: int64 arrays of two or more, ascending; some buckets at a time."""
    step = max(1, _BUCKETS * _AT_ONCE // max(_AT_ONCE, rows))
    for first in range(0, _BUCKETS, step):
        parts = [run.part(first, min(first + step, _BUCKETS)) for run in runs]
        hashes = np.concatenate([hashes for hashes, _ in parts])
        numbers = np.concatenate([found for _, found in parts])
        order = np.lexsort((numbers, hashes["low"], hashes["high"]))
        hashes, numbers = hashes[order], numbers[order]
        new = np.ones(len(hashes), bool)
        new[1:] = hashes[1:] != hashes[:-1]
        starts = np.flatnonzero(new)
        lengths = np.diff(np.append(starts, len(hashes)))
        many = lengths > 1
        yield [
            numbers[start : start + length]
            for start, length in zip(starts[many], lengths[many], strict=True)
        ]
