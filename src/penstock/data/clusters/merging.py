"""The rows of a shard, merged from the runs that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.blobs import Blobs
from penstock.data.clusters.repeats import repeated
from penstock.data.clusters.runs import read_chunks
from penstock.data.columns import Column, canonical, one_chunk


def merged(
    blobs: Blobs,
    payload: Mapping[str, Any],
    columns: Sequence[Column],
    key: str,
    schemas: Sequence[str],
) -> tuple[pa.Table, dict[str, Any]]:
    """(rows in order of their key, by `Sorted.payloads`; what `repeated` tells of them).

    columns  that are wanted
    schemas  of runs, by number
    The rows behind the shard's own, which its last block of content needs, are among them.
    Raises NotFound, Damaged, Unavailable.
    """
    parts, starts, labels = [], [], []
    rows = 0
    for blob, schema, where, at, sizes, sums in payload["runs"]:
        found = read_chunks(blobs, blob, at, sizes, sums, schemas[schema])
        starts.append(rows)
        labels.append(where)
        rows += sum(each.num_rows for each in found)
        table = pa.Table.from_batches(found)
        parts.append(canonical(table.select([each.name for each in columns]), columns))
    table = pa.concat_tables(parts)
    skip = payload["skip"]
    order = pc.sort_indices(table[key])  # stable: of equal keys that of the earlier run is first
    order = order.slice(skip, payload["rows"] + payload["more"])
    table = _taken(table, order)
    whose = np.searchsorted(starts, order.to_numpy(), side="right") - 1
    keys = one_chunk(table[key]).slice(0, payload["rows"])
    return table, repeated(keys, lambda row: str(labels[whose[row]]))


def _taken(table: pa.Table, order: pa.Array) -> pa.Table:
    """Rows of a table by their number."""
    whole = [one_chunk(each).take(order) for each in table.columns]
    return pa.table(whole, schema=table.schema)
