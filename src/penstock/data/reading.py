"""Reading a version without a loader: resolve a reference, a split or some rows as Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.hashing import PREFIX
from penstock.blobs import Blobs
from penstock.data.at_rest import decode
from penstock.data.columns import arrow_schema, described
from penstock.data.manifest import Manifest, no_such_split, read_manifest
from penstock.data.source import chosen, shard_errors
from penstock.records import Reference, Version

if TYPE_CHECKING:
    from penstock.meta.port import Reader


def resolve(reader: Reader, reference: str) -> tuple[Version, str | None]:
    """The version and the split of NAME[@VERSION|ALIAS][:SPLIT].

    A reference without a split gives the only split there is, or None where there are several.
    Raises BadInput for what is no reference, NotFound with the nearest name, alias or split.
    """
    wanted = Reference.parse(reference)
    version = reader.get_version("dataset", reference)
    splits = version.summary.get("splits", {})
    if wanted.split is None:
        return version, next(iter(splits)) if len(splits) == 1 else None
    if wanted.split not in splits:
        raise no_such_split(wanted.split, splits, version.reference)
    return version, wanted.split


@dataclass(frozen=True, slots=True)
class MadeOf:
    """What versions were made of, and what they hold: digests without their prefix.

    units   keys under which the outputs of units are remembered
    inputs  contents that were read
    shards  blobs
    """

    units: frozenset[str] = frozenset()
    inputs: frozenset[str] = frozenset()
    shards: frozenset[str] = frozenset()

    def __or__(self, other: MadeOf) -> MadeOf:
        return MadeOf(
            self.units | other.units, self.inputs | other.inputs, self.shards | other.shards
        )


def made_of(blobs: Blobs, digest: str) -> MadeOf:
    """Of one version, by its manifest. Raises NotFound, Damaged, NewerSchema."""
    manifest = read_manifest(blobs, digest)
    shards = frozenset(each.removeprefix(PREFIX) for each in manifest.shards.digests())
    table = manifest.table("inputs")
    if table is None or "unit" not in table.column_names:
        return MadeOf(shards=shards)
    units, inputs = (frozenset(table[name].unique().to_pylist()) for name in ("unit", "digest"))
    return MadeOf(units, inputs, shards)


def unit_ranges(manifest: Manifest, split: str, rows_per_unit: int) -> list[tuple[int, int]]:
    """A split's rows in units: (start, stop) of each, in order; the last may be shorter."""
    if rows_per_unit < 1:
        raise BadInput(f"{rows_per_unit} rows make no unit", "Give at least one row per unit.")
    rows = manifest.split(split).rows
    return [(at, min(at + rows_per_unit, rows)) for at in range(0, rows, rows_per_unit)]


def read_split(
    blobs: Blobs, manifest: Manifest, split: str, columns: Sequence[str] | None = None
) -> pa.Table:
    """All rows of a split, in order, verified. Raises NotFound, Damaged (names the shard)."""
    return read_rows(blobs, manifest, split, columns)


def read_rows(
    blobs: Blobs,
    manifest: Manifest,
    split: str,
    columns: Sequence[str] | None = None,
    start: int = 0,
    stop: int | None = None,
) -> pa.Table:
    """Rows start..stop-1 of a split; reads only the shards that hold them.

    columns  names; default: all, in the schema's order
    Raises NotFound (split, column), Damaged (names the shard).
    """
    tables = list(read_tables(blobs, manifest, split, columns, start, stop))
    if tables:
        return pa.concat_tables(tables)
    return arrow_schema(chosen(manifest, columns)).empty_table()


def read_tables(
    blobs: Blobs,
    manifest: Manifest,
    split: str,
    columns: Sequence[str] | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[pa.Table]:
    """Rows start..stop-1 of a split, the part of one shard at a time; see `read_rows`."""
    names = [each.name for each in chosen(manifest, columns)]
    for number, low, high in parts_of(manifest, split, start, stop):
        yield read_shard(blobs, manifest, split, number, names).slice(low, high - low)


def parts_of(
    manifest: Manifest, split: str, start: int = 0, stop: int | None = None
) -> Iterator[tuple[int, int, int]]:
    """Where rows start..stop-1 of a split lie: (shard, first row in it, row behind the last)."""
    rows = manifest.split(split).rows
    stop = rows if stop is None else min(stop, rows)
    ends = manifest.ends_of(split)
    for number in range(int(np.searchsorted(ends, start, side="right")), len(ends)):
        before = int(ends[number - 1]) if number else 0
        if before >= stop:
            return
        yield number, max(start - before, 0), min(stop, int(ends[number])) - before


def read_shard(
    blobs: Blobs, manifest: Manifest, split: str, number: int, columns: Sequence[str] | None = None
) -> pa.Table:
    """One shard, verified, under the columns' schema. Raises Damaged, which names it."""
    shard = manifest.shards_of(split)[number]
    wanted = chosen(manifest, columns)
    with shard_errors(manifest.called, split, number):
        data = blobs.get(shard.digest)
        table = decode(data, shard.format, shard.digest, [each.name for each in wanted])
    return described(table, wanted)
