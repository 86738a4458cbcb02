"""The manifest of a dataset version: what its digest stands for.

Two blobs. One is JSON: schema, splits, statistics, lineage, and the digest of the other, which is
an Arrow IPC file with one row per shard (split, number, digest, rows, bytes), ordered by split and
number. Both are found by content; `docs/data.md` describes them for readers without Penstock.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.base.errors import Damaged, NewerSchema, NotFound
from penstock.base.hashing import short
from penstock.base.nearest import did_you_mean
from penstock.blobs import Blobs
from penstock.data.columns import Column
from penstock.data.statistics import Statistics
from penstock.records import from_json, to_json

FORMAT = 1

SHARD_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("number", pa.int64()),
        ("digest", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Split:
    """digest  SHA-256 of the content in its order, whatever the shards (see `content.py`)
    share   wanted part of all rows
    """

    name: str
    rows: int
    shards: int
    bytes: int
    share: float
    digest: str


@dataclass(frozen=True, slots=True)
class Shard:
    """One Parquet blob. `number` counts from 0 in its split; `bytes` are those of the blob."""

    split: str
    number: int
    digest: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where the rows came from.

    function  "module:qualname"
    code      digest of its code identity; `parts` are the functions and packages behind it
    key       column, "module:qualname" of a function, or "content"
    content   the key under which the call is remembered: code, parameters, key, splits
    inputs    digests of what was read; empty until sources are tracked
    git       short commit, "+" behind it when the tree was dirty
    """

    function: str
    code: str
    content: str = ""
    parts: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    key: str = "content"
    inputs: tuple[str, ...] = ()
    git: str | None = None


class Shards(Sequence[Shard]):
    """The shard table, read where it lies; a row becomes a `Shard` when asked for."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return Shards(self.table.take(list(range(*number.indices(len(self))))))
        if not -len(self) <= number < len(self):
            raise IndexError(number)
        return Shard(**self.table.slice(number % len(self), 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Shard]:
        for row in self.table.to_pylist():
            yield Shard(**row)

    def digests(self) -> list[str]:
        found: list[str] = self.table["digest"].to_pylist()
        return found


@dataclass(frozen=True, slots=True)
class Manifest:
    """digest  of the JSON blob, which is the version's own
    key     name of the column that names samples
    checks  what was verified when the version was made, e.g. "no_key_in_two_splits": True
    """

    digest: str
    columns: tuple[Column, ...]
    key: str
    splits: dict[str, Split]
    shards: Shards
    shard_table: str
    statistics: dict[str, Statistics]
    lineage: Lineage
    checks: dict[str, Any]
    format: int = FORMAT

    @property
    def schema(self) -> dict[str, Column]:
        """Columns by name, in order."""
        return {each.name: each for each in self.columns}

    @property
    def rows(self) -> int:
        return sum(each.rows for each in self.splits.values())

    @property
    def bytes(self) -> int:
        """Of all shards at rest."""
        return sum(each.bytes for each in self.splits.values())

    @property
    def refs(self) -> list[str]:
        """Every blob that the version needs, its own manifest included."""
        return [self.digest, self.shard_table, *self.shards.digests()]

    def split(self, name: str) -> Split:
        """Raises NotFound, which offers the nearest."""
        if (found := self.splits.get(name)) is None:
            raise no_such_split(name, self.splits, short(self.digest))
        return found

    def shards_of(self, split: str) -> Shards:
        """The shards of a split, in order."""
        start = 0
        for name, each in self.splits.items():
            if name == split:
                return Shards(self.shards.table.slice(start, each.shards))
            start += each.shards
        raise no_such_split(split, self.splits, short(self.digest))

    def ends_of(self, split: str) -> npt.NDArray[np.int64]:
        """For each shard of a split the number of rows up to its end: int64 [shards]."""
        rows = self.shards_of(split).table["rows"].to_numpy()
        ends: npt.NDArray[np.int64] = np.cumsum(rows, dtype=np.int64)
        return ends


def no_such_split(name: str, known: Sequence[str] | dict[str, Any], dataset: str) -> NotFound:
    """The error for a split that a dataset does not have."""
    return NotFound(
        f'dataset {dataset} has no split "{name}"', did_you_mean(name, known), split=name
    )


@dataclass(frozen=True, slots=True)
class _Stored:
    """The JSON blob. Splits are a list because canonical JSON sorts the keys of objects."""

    format: int
    kind: str
    columns: list[Column]
    key: str
    splits: list[Split]
    shard_table: str
    statistics: dict[str, Statistics]
    lineage: Lineage
    checks: dict[str, Any]


def write_manifest(
    blobs: Blobs,
    *,
    columns: Sequence[Column],
    key: str,
    splits: Sequence[Split],
    shards: Sequence[Shard],
    statistics: dict[str, Statistics],
    lineage: Lineage,
    checks: dict[str, Any],
) -> Manifest:
    """Store both blobs and return the manifest. `shards`: ordered by split, then number."""
    table = pa.table(
        [[getattr(each, name) for each in shards] for name in SHARD_SCHEMA.names],
        schema=SHARD_SCHEMA,
    )
    shard_table = blobs.put(_ipc(table))
    stored = _Stored(
        FORMAT,
        "dataset",
        list(columns),
        key,
        list(splits),
        shard_table,
        statistics,
        lineage,
        checks,
    )
    return _manifest(blobs.put(to_json(stored)), stored, table)


def _manifest(digest: str, stored: _Stored, table: pa.Table) -> Manifest:
    return Manifest(
        digest=digest,
        columns=tuple(stored.columns),
        key=stored.key,
        splits={each.name: each for each in stored.splits},
        shards=Shards(table),
        shard_table=stored.shard_table,
        statistics=stored.statistics,
        lineage=stored.lineage,
        checks=stored.checks,
        format=stored.format,
    )


def _ipc(table: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def read_manifest(blobs: Blobs, digest: str) -> Manifest:
    """Read and verify both blobs.

    Raises NotFound, Damaged, and NewerSchema for a format that this Penstock does not know.
    """
    data = blobs.get(digest)
    _refuse_newer(data, digest)
    stored = from_json(_Stored, data)
    try:
        table = pa.ipc.open_file(pa.py_buffer(blobs.get(stored.shard_table))).read_all()
    except pa.ArrowException as error:
        raise Damaged(
            f"the shard table of dataset manifest {short(digest)} does not parse: {error}",
            "Restore the blob store from a good copy, or prepare the dataset with fresh=True.",
            digest=stored.shard_table,
        ) from None
    return _manifest(digest, stored, table)


def _refuse_newer(data: bytes, digest: str) -> None:
    try:
        found = json.loads(data)
        kind, version = found.get("kind"), int(found["format"])
    except (ValueError, KeyError, TypeError, AttributeError):
        kind, version = None, 0
    if kind != "dataset":
        raise Damaged(
            f"blob {short(digest)} is not the manifest of a dataset",
            "Was it altered? `penstock data show NAME` lists what there is.",
            digest=digest,
        )
    if version > FORMAT:
        raise NewerSchema(
            f"dataset manifest {short(digest)} has format {version}; this Penstock reads {FORMAT}",
            "Use the Penstock that wrote it, or a newer one.",
            digest=digest,
            format=version,
        )
