"""Reading a version without a loader: resolve a reference, a split or some rows as Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.hashing import short
from penstock.blobs import Blobs
from penstock.data.at_rest import decode
from penstock.data.columns import arrow_schema
from penstock.data.manifest import Manifest, no_such_split
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
    wanted = chosen(manifest, columns)
    rows = manifest.split(split).rows
    stop = rows if stop is None else min(stop, rows)
    shards, ends = manifest.shards_of(split), manifest.ends_of(split)
    first = int(np.searchsorted(ends, start, side="right"))
    pieces = []
    for number in range(first, len(shards)):
        shard = shards[number]
        before = int(ends[number]) - shard.rows
        if before >= stop:
            break
        with shard_errors(short(manifest.digest), split, number):
            data = blobs.get(shard.digest)
            table = decode(data, shard.format, shard.digest, [each.name for each in wanted])
        low, high = max(start - before, 0), min(stop - before, shard.rows)
        pieces.append(table.slice(low, high - low))
    return pa.concat_tables(pieces) if pieces else arrow_schema(wanted).empty_table()
