"""Where a loader's rows come from: anything with a length that gathers rows by number.

`ShardSource` gathers from the shards of a dataset version. A map-style torch Dataset, a mixture or
windows over episodes fit the same protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput, Damaged, NotFound
from penstock.base.hashing import short
from penstock.base.layout import Layout
from penstock.base.nearest import did_you_mean
from penstock.blobs import Blobs
from penstock.data.cache import ShardCache, views
from penstock.data.columns import Array, Column, Values
from penstock.data.manifest import Manifest
from penstock.data.order import Rows


class Source(Protocol):
    """Rows 0..len-1; the same number always gives the same sample."""

    @property
    def identity(self) -> str:
        """What keys the order: equal for equal samples in equal order, wherever they lie."""
        ...

    def __len__(self) -> int: ...

    def gather(self, rows: Rows) -> dict[str, Values]:
        """These rows in this order: column -> new array [len(rows), *shape], or a list."""
        ...


class ShardSource:
    """The rows of one split, gathered from memory-mapped shards that are opened on first use.

    One thread at a time. Keeps every shard it opened mapped (address space, not memory).
    """

    def __init__(
        self,
        blobs: Blobs,
        layout: Layout,
        manifest: Manifest,
        split: str,
        *,
        columns: Sequence[str] | None = None,
        name: str = "",
    ) -> None:
        found = manifest.split(split)
        self._split = split
        self._rows = found.rows
        self._name = name or short(manifest.digest)
        self._columns = chosen(manifest, columns)
        self._shards = manifest.shards_of(split)
        self._ends = manifest.ends_of(split)
        self._cache = ShardCache(blobs, layout.shards)
        self._open: dict[int, dict[str, Array | pa.Array]] = {}
        self.identity = f"{found.digest}/{split}"
        _refuse_gaps(manifest, self._columns)

    def __len__(self) -> int:
        return self._rows

    def gather(self, rows: Rows) -> dict[str, Values]:
        """One `take` per shard and column. Raises Damaged, naming split and shard."""
        numbers = np.searchsorted(self._ends, rows, side="right")
        if len(rows) and (numbers == numbers[0]).all():
            places: list[tuple[int, Any]] = [(int(numbers[0]), slice(None))]
        else:
            places = [(int(n), np.flatnonzero(numbers == n)) for n in np.unique(numbers)]
        picked = [(self._shard(n), rows[at] - self._start(n), at) for n, at in places]
        return {
            column.name: _gather(
                column, len(rows), [(s[column.name], r, at) for s, r, at in picked]
            )
            for column in self._columns
        }

    def _start(self, number: int) -> int:
        return int(self._ends[number - 1]) if number else 0

    def _shard(self, number: int) -> dict[str, Array | pa.Array]:
        if number not in self._open:
            batch = self._read(number)
            self._open[number] = views(batch, self._columns)
        return self._open[number]

    def _read(self, number: int) -> pa.RecordBatch:
        with shard_errors(self._name, self._split, number):
            shard = self._shards[number]
            return self._cache.open(shard.digest, shard.format)


class shard_errors:  # noqa: N801 - reads like the verb it is
    """Context: a damaged or lost blob becomes Damaged that names dataset, split and shard."""

    def __init__(self, dataset: str, split: str, number: int) -> None:
        self._where = dataset, split, number

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Damaged | NotFound):
            return
        dataset, split, number = self._where
        lost = "is gone" if isinstance(error, NotFound) else "is damaged"
        raise Damaged(
            f'shard {number} of split "{split}" of dataset {dataset} {lost}: {error.what}',
            "Restore the blob from a good copy, or run prepare with fresh=True, which writes it "
            "again; no batch of it was given out.",
            **{**error.facts, "dataset": dataset, "split": split, "shard": number},
        ) from error


def chosen(manifest: Manifest, columns: Sequence[str] | None) -> list[Column]:
    """The named columns in the schema's order; all when none are named. NotFound."""
    if columns is None:
        return list(manifest.columns)
    for name in columns:
        if name not in manifest.schema:
            raise NotFound(
                f'dataset {short(manifest.digest)} has no column "{name}"',
                did_you_mean(name, manifest.schema),
                column=name,
            )
    return [each for each in manifest.columns if each.name in columns]


def _refuse_gaps(manifest: Manifest, columns: Sequence[Column]) -> None:
    """A tensor of whole numbers has no place for a missing value: say so before training."""
    for column in columns:
        found = manifest.statistics.get(column.name)
        if found and found.nulls and column.fixed and not column.dtype.startswith("float"):
            raise BadInput(
                f'column "{column.name}" has {found.nulls} missing values, which a tensor of '
                f"{column.dtype} cannot hold",
                "Fill them in the prepare function, or leave the column out with columns=[…].",
                column=column.name,
            )


def _gather(column: Column, rows: int, parts: list[tuple[Array | pa.Array, Rows, Any]]) -> Values:
    if not column.fixed:
        return _gather_list(rows, parts)
    if len(parts) == 1:
        taken: Array = np.take(parts[0][0], parts[0][1], axis=0)
        return taken
    out = np.empty((rows, *column.shape), column.dtype)
    for values, local, at in parts:
        out[at] = np.take(values, local, axis=0)
    return out


def _gather_list(rows: int, parts: list[tuple[Any, Rows, Any]]) -> list[Any]:
    out = np.empty(rows, dtype=object)
    for values, local, at in parts:
        taken = np.empty(len(local), dtype=object)
        taken[:] = values.take(pa.array(local)).to_pylist()
        out[at] = taken
    return out.tolist()
