"""One shard of a version: its rows gathered from the blobs of units, written, measured.

Runs in a map worker or in threads of the calling process. Which rows a shard has follows from the
number of rows alone; so a shard whose rows did not change is known, and not written again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.blobs import Blobs
from penstock.data.at_rest import Stored, store_shard
from penstock.data.columns import Column, canonical, one_chunk
from penstock.data.content import BLOCK, BlockDigests
from penstock.data.manifest import ipc
from penstock.data.preparation.tables import column_from, put_facts, read_facts, read_table
from penstock.data.references import Objects
from penstock.data.shard_statistics import statistics_table
from penstock.data.statistics import gatherers, sketch_table

if TYPE_CHECKING:
    from penstock.jobs.map import UnitContext

FUNCTION = "penstock.data.preparation.shelf:shard"
_BLOCK_ROWS, _BLOCK_BYTES = 1 << 14, 4 << 20  # of rows that are looked at together

Rows = npt.NDArray[np.int64]


def shard(payload: dict[str, Any], context: UnitContext) -> dict[str, Any]:
    """Write one shard.

    payload  {"slices": [[blob, first, end], …]} or {"index": [digest, first, end]} (row numbers
             in all units, int64), "rows": of the shard, "more": rows behind it that its last block
             of content needs, "blocks": whether a block of content begins in it
    shared   {"columns", "key", "units": blobs of all units and where each begins; only for an
             index: "right": the same of what is joined, its columns and index}
    returns  {"refs", "digest", "rows", "bytes", "format", "facts"}; the blob of facts holds
             statistics, sketches, digests of content, and the blobs that rows refer to
    """
    columns = [column_from(each) for each in context.shared["columns"]]
    table = _gathered(payload, context.shared, context.blobs, columns)
    return made(context.blobs, table, payload, columns, context.shared["key"])


def made(
    blobs: Blobs,
    table: pa.Table,
    payload: Mapping[str, Any],
    columns: Sequence[Column],
    key: str,
) -> dict[str, Any]:
    """Write the shard of some rows; as `shard`. payload: "rows", "blocks"."""
    rows = table.slice(0, payload["rows"])
    stored = store_shard(blobs, rows, columns)
    content = BlockDigests(columns)
    objects = Objects()
    objects.add(rows)
    found = gatherers(columns, but=key)
    step = _block_rows(stored)
    for start in range(0, table.num_rows, step):
        block = _joined(table.slice(start, step))
        if payload["blocks"]:
            content.add(block)
        own = rows.num_rows - start
        for name, gatherer in found.items() if own > 0 else ():
            gatherer.add(block[name].slice(0, own))
    listed = objects.table()
    facts = {
        "statistics": ipc(statistics_table(rows, columns, "", 0)),
        "sketches": ipc(sketch_table(found.values())),
        "content": ipc(_content(content)),
        "objects": None if listed is None else ipc(listed),
    }
    told = pa.table({name: pa.array([data], pa.large_binary()) for name, data in facts.items()})
    digest = put_facts(blobs, told)
    named = [] if listed is None else listed["digest"].to_pylist()
    return {
        "refs": [stored.digest, digest, *named],
        "digest": stored.digest,
        "rows": stored.rows,
        "bytes": stored.bytes,
        "format": stored.format,
        "facts": digest,
    }


def _block_rows(stored: Stored) -> int:
    """Rows that are looked at together: few enough to stay in the processor's cache from one look
    to the next, and the same for equal rows, as sums of floats depend on it."""
    each = stored.bytes // max(1, stored.rows)
    return 1 << max(0, int(math.log2(max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // max(1, each))))))


def _joined(table: pa.Table) -> pa.Table:
    """With each column in one part."""
    return pa.table([one_chunk(each) for each in table.columns], schema=table.schema)


def _content(content: BlockDigests) -> pa.Table:
    found = content.end()
    return pa.table(
        {
            "values": pa.array([values for values, _ in found], pa.large_binary()),
            "there": pa.array([there for _, there in found], pa.large_binary()),
        }
    )


def read_shard_facts(blobs: Blobs, digest: str) -> dict[str, pa.Table | None]:
    """Its tables by name."""
    row = read_facts(blobs, digest).to_pylist()[0]
    return {
        name: None if data is None else pa.ipc.open_file(pa.py_buffer(data)).read_all()
        for name, data in row.items()
    }


def _gathered(
    payload: dict[str, Any], shared: dict[str, Any], blobs: Blobs, columns: Sequence[Column]
) -> pa.Table:
    """The rows of the shard, and those behind it that its content needs."""
    if "slices" in payload:
        parts = [
            _part(read_table(blobs, blob), columns).slice(first, end - first)
            for blob, first, end in payload["slices"]
        ]
        return pa.concat_tables(parts)
    right = shared.get("right")
    own = [each for each in columns if right is None or each.name not in right["names"]]
    digest, first, end = payload["index"]
    table = taken(blobs, shared["units"], _numbers(blobs, digest, first, end), own)
    if right is None:
        return table
    theirs = [each for each in columns if each.name in right["names"]]
    numbers = _numbers(blobs, payload["right"], first, end)
    joined = taken(
        blobs, right["units"], numbers, theirs, [right["names"][each.name] for each in theirs]
    )
    for each in theirs:
        table = table.append_column(joined.schema.field(each.name), joined[each.name])
    return table.select([each.name for each in columns])


def _numbers(blobs: Blobs, digest: str, first: int, end: int) -> Rows:
    return np.frombuffer(blobs.read(digest, 8 * first, 8 * (end - first)), "<i8").astype(np.int64)


def _part(
    table: pa.Table, columns: Sequence[Column], names: Sequence[str] | None = None
) -> pa.Table:
    names = names or [each.name for each in columns]
    chosen = pa.table([table[name] for name in names], names=[each.name for each in columns])
    return canonical(chosen, columns)


def taken(
    blobs: Blobs,
    units: Sequence[Sequence[Any]],
    numbers: Rows,
    columns: Sequence[Column],
    names: Sequence[str] | None = None,
) -> pa.Table:
    """Rows by their number in all units, in this order; -1 gives a row without values.

    units  [blob, number of its first row]
    names  of the columns in the blobs, where they are others
    """
    starts = np.array([start for _, start in units], np.int64)
    whose = np.searchsorted(starts, numbers, side="right") - 1
    parts, places = [], []
    for unit in np.unique(whose):
        at = np.flatnonzero(whose == unit)
        if unit < 0:
            parts.append(_part(_nothing(columns, names, len(at)), columns, names))
        else:
            table = _part(read_table(blobs, units[unit][0]), columns, names)
            parts.append(table.take(pa.array(numbers[at] - starts[unit])))
        places.append(at)
    if not parts:
        return _part(_nothing(columns, names, 0), columns, names)
    order = np.argsort(np.concatenate(places), kind="stable")
    if len(parts) == 1:
        return parts[0]
    return pa.concat_tables(parts).combine_chunks().take(pa.array(order))


def _nothing(columns: Sequence[Column], names: Sequence[str] | None, rows: int) -> pa.Table:
    return pa.table({name: pa.nulls(rows) for name in names or [each.name for each in columns]})


def spread(start: int, rows: int, total: int) -> tuple[int, bool]:
    """Of a shard of rows start..start+rows-1: how many rows behind it its last block of content
    needs, and whether a block begins in it.

    >>> spread(0, 512, 1000), spread(512, 488, 1000), spread(64, 64, 1000), spread(0, 64, 1000)
    ((0, True), (0, True), (0, False), (192, True))
    """
    first = -(-start // BLOCK) * BLOCK
    if first >= start + rows:
        return 0, False
    if first != start:
        raise AssertionError("shards begin where blocks do, or hold no whole one")
    end = min(total, -(-(start + rows) // BLOCK) * BLOCK)
    return end - start - rows, True
