"""Shards: which of them are known, who makes the others, what the manifest says of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.hashing import digest_json
from penstock.data.columns import Column
from penstock.data.content import Content
from penstock.data.manifest import Shard, Split
from penstock.data.preparation import shelf
from penstock.data.preparation.asking import Asked
from penstock.data.preparation.running import OnProgress, Progress
from penstock.data.references import OBJECTS_SCHEMA
from penstock.data.shards import SHARD_BYTES, SHARD_ROWS, Written
from penstock.data.statistics import gatherers, read_sketches, sketch_table

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores

CODE = 4  # raised when equal rows would give another shard

Which = tuple[str, int]  # a split, and the number of a shard in it
Make = Callable[[Mapping[str, dict[str, Any]]], Iterable[dict[str, Any]]]


class Heap(Protocol):
    """The rows of one split in their order."""

    @property
    def name(self) -> str: ...

    @property
    def rows(self) -> int: ...

    def payloads(self, step: int) -> Iterable[dict[str, Any]]:
        """What whoever makes a shard is told, one per shard of `step` rows."""
        ...


def shard_rows(rows: int, size: int) -> int:
    """Rows of a full shard: a power of two, so that rows that become a little larger or fewer
    change nothing.

    >>> shard_rows(1000, 1000 * 4100), shard_rows(1_000_000, 4_000_000), shard_rows(10, 10 << 30)
    (8192, 262144, 1)
    """
    most = min(SHARD_ROWS, SHARD_BYTES * rows // max(1, size))
    return 1 << max(0, int(math.log2(max(1, most))))


def shards_of(
    stores: Stores,
    heaps: Sequence[Heap],
    step: int,
    shared: Mapping[str, Any],
    make: Make,
    on_progress: OnProgress | None,
) -> dict[Which, dict[str, Any]]:
    """What `shelf.shard` gives, for each shard; remembered by the rows that a shard has.

    step    rows of a full shard
    shared  what makers are told beside the payloads
    make    has shards made, by name of the work -> payload; in their order
    Raises what `make` raises.
    """
    wanted = {
        (heap.name, number): payload
        for heap in heaps
        for number, payload in enumerate(heap.payloads(step))
    }
    keys = {
        which: digest_json(["shard", CODE, payload, shared]) for which, payload in wanted.items()
    }
    with stores.meta.read() as meta:
        recalled = {which: meta.recall(key) for which, key in keys.items()}
    known = {
        which: memory
        for which, memory in recalled.items()
        if memory is not None and all(stores.blobs.exists(each) for each in memory["refs"])
    }
    missing = [which for which in wanted if which not in known]
    rows = sum(each["rows"] for each in known.values())

    def tell() -> None:
        if on_progress is not None:
            on_progress(Progress("shards", len(known), len(wanted), rows))

    tell()
    made = make({keys[which]: wanted[which] for which in missing}) if missing else ()
    for which, result in zip(missing, made, strict=True):
        known[which] = result
        rows += result["rows"]
        tell()
    with stores.meta.write() as tx:
        for which in missing:
            tx.remember(keys[which], "unit", known[which], ())
    return {which: known[which] for which in wanted}


def refuse_empty(heaps: Sequence[Heap], total: int) -> None:
    """Raise BadInput for a split without rows. total: rows of all, before any were left out."""
    for heap in heaps:
        if not heap.rows:
            raise BadInput(
                f'split "{heap.name}" got none of the {total} rows',
                "Give it a larger share, leave it out, or bring more rows; "
                'splits={"all": 1} keeps everything together.',
                split=heap.name,
                rows=total,
            )


def written_of(
    stores: Stores,
    asked: Asked,
    heaps: Sequence[Heap],
    columns: Sequence[Column],
    key: str,
    found: Mapping[Which, dict[str, Any]],
    total: int,
) -> Written:
    """What the manifest says of the shards that `shards_of` gave. total: rows before any were left
    out."""
    shards, splits, tables = [], [], []
    objects: set[str] = set()
    gathered = gatherers(columns, but=key)
    for heap in heaps:
        content = Content(columns)
        count = sum(name == heap.name for name, _ in found)
        ours = [found[heap.name, number] for number in range(count)]
        for number, each in enumerate(ours):
            shards.append(Shard(heap.name, number, each["digest"], each["rows"], each["bytes"],
                                each["format"]))  # fmt: skip
            facts = shelf.read_shard_facts(stores.blobs, each["facts"])
            tables.append(_named(facts["statistics"], heap.name, number))
            for name, later in read_sketches(facts["sketches"], columns).items():
                gathered[name].merge(later)
            digests = facts["content"].to_pylist() if facts["content"] is not None else []
            content.join([(row["values"], row["there"]) for row in digests])
            if facts["objects"] is not None:
                objects.update(facts["objects"]["digest"].to_pylist())
        size = sum(each["bytes"] for each in ours)
        share = asked.rule.shares.get(heap.name, heap.rows / total)
        splits.append(Split(heap.name, heap.rows, len(ours), size, share, content.digest))
    beside = {
        "statistics": pa.concat_tables(tables).combine_chunks(),
        "sketches": sketch_table(gathered.values()),
        "objects": pa.table([sorted(objects)], schema=OBJECTS_SCHEMA) if objects else None,
    }
    return Written(
        columns=list(columns),
        key=key,
        splits=splits,
        shards=shards,
        statistics={name: each.result() for name, each in gathered.items()},
        checks={"no_duplicate_keys": True, "no_key_in_two_splits": True,
                "keys": sum(each.rows for each in heaps)},
        tables={name: table for name, table in beside.items() if table is not None},
    )  # fmt: skip


def _named(table: pa.Table | None, split: str, number: int) -> pa.Table:
    assert table is not None
    rows = table.num_rows
    at = table.schema.get_field_index("split")
    table = table.set_column(at, "split", pa.array([split] * rows, pa.string()))
    at = table.schema.get_field_index("number")
    return table.set_column(at, "number", pa.array([number] * rows, pa.int64()))
