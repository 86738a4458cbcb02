"""The manifest of a dataset version: what its digest stands for.

One JSON blob (schema, splits, statistics, lineage) that names tables, each an Arrow IPC file in a
blob of its own: "shards" (one row per shard, ordered by split and number) is always there,
others as the version needs them. The shard table stays Arrow: a version of 100,000 shards costs
some 10 MB, not a list of objects. `docs/formats.md` describes all of it for readers without
Penstock.

Format 1 had one table, named by the field `shard_table`, and no column `format`: its shards are
Parquet.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.base.errors import Damaged, NewerSchema, NotFound
from penstock.base.hashing import is_digest, short
from penstock.base.nearest import did_you_mean
from penstock.blobs import Blobs
from penstock.data.columns import Column
from penstock.data.plain import numbers
from penstock.data.statistics import Statistics
from penstock.records import from_json, to_json

FORMAT = 2

SHARD_SCHEMA = pa.schema(
    [
        ("split", pa.string()),
        ("number", pa.int64()),
        ("digest", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("format", pa.string()),
    ]
)
_ITERATED = 4096  # shards that become Python objects at once

ShardFormat = Literal["parquet", "arrow", "mapped"]
MAPPABLE = ("arrow", "mapped")  # formats of shards that are mapped as they lie


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
    """One blob with rows of one split.

    number  counts from 0 in its split
    bytes   of the blob
    format  of the blob: "parquet", "arrow" for an Arrow IPC file, "mapped" for both in one
    """

    split: str
    number: int
    digest: str
    rows: int
    bytes: int
    format: ShardFormat = "parquet"


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
        at = number % len(self)
        return Shard(*(column[at].as_py() for column in self.table.columns))

    def __iter__(self) -> Iterator[Shard]:
        for batch in self.table.to_batches(max_chunksize=_ITERATED):
            for row in batch.to_pylist():
                yield Shard(**row)

    def numbers(self, name: str) -> npt.NDArray[np.int64]:
        """A column of whole numbers: int64 [shards]."""
        chunks = [numbers(chunk) for chunk in self.table[name].chunks]
        return np.concatenate(chunks) if chunks else np.empty(0, np.int64)

    def digests(self) -> list[str]:
        found: list[str] = self.table["digest"].to_pylist()
        return found


@dataclass(frozen=True, slots=True)
class Manifest:
    """digest  of the JSON blob, which is the version's own
    key     name of the column that names samples
    tables  name -> digest of an Arrow IPC blob; `table` reads one. "shards" (here as `shards`),
            "statistics" (of every shard and column), "sketches" (distributions, of the whole
            version by column), "inputs" (what was read), "objects" (blobs that reference columns
            name, in its column `digest`)
    checks  what was verified when the version was made, e.g. "no_key_in_two_splits": True
    notes   small JSON facts by owner, e.g. "expectations", "quarantine", "steps"
    name    what people call it, NAME@VERSION, where whoever read it knew; for messages alone
    """

    digest: str
    columns: tuple[Column, ...]
    key: str
    splits: dict[str, Split]
    shards: Shards
    tables: dict[str, str]
    statistics: dict[str, Statistics]
    lineage: Lineage
    checks: dict[str, Any]
    notes: dict[str, Any]
    read: Callable[[str], pa.Table] = field(compare=False, repr=False)
    format: int = FORMAT
    name: str = field(default="", compare=False)

    @property
    def called(self) -> str:
        """Its name, or the beginning of its digest."""
        return self.name or short(self.digest)

    def table(self, name: str) -> pa.Table | None:
        """A table beside the shards, read and verified now; None where the version has none.

        Raises NotFound and Damaged when its blob is gone or altered.
        """
        if name == "shards":
            return self.shards.table
        digest = self.tables.get(name)
        return None if digest is None else self.read(digest)

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
        objects = self.table("objects")
        named = [] if objects is None else objects["digest"].to_pylist()
        return [self.digest, *self.tables.values(), *self.shards.digests(), *named]

    def split(self, name: str) -> Split:
        """Raises NotFound, which offers the nearest."""
        if (found := self.splits.get(name)) is None:
            raise no_such_split(name, self.splits, self.called)
        return found

    def shards_of(self, split: str) -> Shards:
        """The shards of a split, in order."""
        start = 0
        for name, each in self.splits.items():
            if name == split:
                return Shards(self.shards.table.slice(start, each.shards))
            start += each.shards
        raise no_such_split(split, self.splits, self.called)

    def ends_of(self, split: str) -> npt.NDArray[np.int64]:
        """For each shard of a split the number of rows up to its end: int64 [shards]."""
        rows = self.shards_of(split).numbers("rows")
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
    tables: dict[str, str]
    statistics: dict[str, Statistics]
    lineage: Lineage
    checks: dict[str, Any]
    notes: dict[str, Any]


def write_manifest(
    blobs: Blobs,
    *,
    columns: Sequence[Column],
    key: str,
    splits: Sequence[Split],
    shards: Sequence[Shard] | pa.Table,
    statistics: dict[str, Statistics],
    lineage: Lineage,
    checks: dict[str, Any],
    tables: Mapping[str, pa.Table] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Manifest:
    """Store the tables and the manifest; return it.

    shards  ordered by split, then number; of very many give the table (SHARD_SCHEMA)
    tables  others by name; the blobs that a column `digest` of "objects" names live as long as
            the version
    Raises what `put` raises.
    """
    table = shards.select(SHARD_SCHEMA.names) if isinstance(shards, pa.Table) else _table_of(shards)
    table = table.cast(SHARD_SCHEMA).combine_chunks()
    named = {"shards": table, **(tables or {})}
    stored = _Stored(
        FORMAT,
        "dataset",
        list(columns),
        key,
        list(splits),
        {name: blobs.put(ipc(named[name])) for name in sorted(named)},  # as canonical JSON has it
        statistics,
        lineage,
        checks,
        dict(notes or {}),
    )
    return _manifest(blobs, blobs.put(to_json(stored)), stored, table)


def _table_of(shards: Sequence[Shard]) -> pa.Table:
    return pa.table(
        [[getattr(each, name) for each in shards] for name in SHARD_SCHEMA.names],
        schema=SHARD_SCHEMA,
    )


def _manifest(
    blobs: Blobs, digest: str, stored: _Stored, table: pa.Table, name: str = ""
) -> Manifest:
    return Manifest(
        digest=digest,
        columns=tuple(stored.columns),
        key=stored.key,
        splits={each.name: each for each in stored.splits},
        shards=Shards(table),
        tables=stored.tables,
        statistics=stored.statistics,
        lineage=stored.lineage,
        checks=stored.checks,
        notes=stored.notes,
        read=partial(_read_table, blobs, digest),
        format=stored.format,
        name=name,
    )


def ipc(table: pa.Table) -> memoryview:
    """A table as the bytes of an Arrow IPC file of one batch."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def read_manifest(blobs: Blobs, digest: str, name: str = "") -> Manifest:
    """Read and verify the manifest and its shard table; other tables when they are asked for.

    name  what people call the version, NAME@VERSION; messages then say so
    Raises NotFound, Damaged, and NewerSchema for a format that this Penstock does not know.
    """
    stored = from_json(_Stored, _as_format_2(blobs.get(digest), digest))
    if not all(map(is_digest, [stored.tables.get("shards", ""), *stored.tables.values()])):
        raise _unreadable(digest, "", "it is not named by a digest")
    table = _read_table(blobs, digest, stored.tables["shards"])
    if stored.format == 1 and "format" not in table.column_names:
        parquet = pa.repeat(pa.scalar("parquet"), table.num_rows)
        table = table.append_column("format", parquet)
    try:
        table = table.select(SHARD_SCHEMA.names).cast(SHARD_SCHEMA)
    except (pa.ArrowException, KeyError) as error:
        raise _unreadable(digest, stored.tables["shards"], error) from None
    return _manifest(blobs, digest, stored, table, name)


def _read_table(blobs: Blobs, manifest: str, digest: str) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.py_buffer(blobs.get(digest))).read_all()
    except pa.ArrowException as error:
        raise _unreadable(manifest, digest, error) from None


def _unreadable(manifest: str, table: str, why: object) -> Damaged:
    return Damaged(
        f"a table of dataset manifest {short(manifest)} does not parse: {why}",
        "Restore the blob store from a good copy, or prepare the dataset with fresh=True.",
        digest=table,
    )


def _as_format_2(data: bytes, digest: str) -> bytes:
    """The JSON of a manifest, that of an older format as one of format 2 would say it."""
    try:
        found = json.loads(data)
        kind, version = found.get("kind"), int(found["format"])
    except (ValueError, KeyError, TypeError, AttributeError):
        found, kind, version = {}, None, 0
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
    if version > 1:
        return data
    return json.dumps(
        found | {"tables": {"shards": found.get("shard_table")}, "notes": {}}
    ).encode()
