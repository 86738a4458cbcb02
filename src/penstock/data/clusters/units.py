"""What a task does: its rows into units of the blob store, each in order of the keys.

A unit is a run (`runs.py`) of at most some 64 MiB of rows, split after split; a task holds one at a
time. Where something else than the key decides the split, the keys alone are one more run: rows of
one key may lie in several splits, and only there are they neighbours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.base.errors import BadInput, NotFound, PenstockError
from penstock.base.hashing import canonical_json
from penstock.blobs import Blobs, open_blobs
from penstock.data.arrow_files import one_batch
from penstock.data.at_rest import size_of
from penstock.data.clusters.runs import put_run
from penstock.data.clusters.sending import Passing
from penstock.data.columns import Column, canonical
from penstock.data.keys import KeyFunction, column_texts, key_hashes, key_texts
from penstock.data.preparation.calling import failed
from penstock.data.preparation.schema import refuse_unknown
from penstock.data.preparation.settled import table_of
from penstock.data.preparation.splitting import Rule, assign, for_columns, found_names
from penstock.data.preparation.tables import column_of
from penstock.data.types import Type, mark_key, type_of

UNIT_BYTES = 64 << 20  # of Arrow
CHUNKS = 512  # of a unit: so small a part of it is read for rows that another shard gets
FEW_CHUNKS = 16  # the same where the cluster sorted the rows before


@dataclass(frozen=True)
class Task:
    """What all tasks are told, by a blob.

    key     the column that names rows
    rule    of the splits, as `Rule.spec` gives it
    types   column -> (meaning, options)
    """

    key: str
    rule: dict[str, Any]
    types: dict[str, tuple[str, dict[str, Any]]]

    def put(self, blobs: Blobs) -> str:
        """Its digest. Raises what `put` raises."""
        return blobs.put(canonical_json(asdict(self)))

    @classmethod
    def read(cls, url: str, digest: str) -> tuple[Task, Blobs]:
        """On the machine of a task. Raises BadInput where it does not reach the caller's store."""
        blobs = open_blobs(url)
        try:
            told = json.loads(blobs.get(digest))
        except NotFound:
            raise BadInput(
                f"the cluster's machines have another disk at {url} than the caller",
                'Set `blobs` to what all of them reach: "s3://BUCKET/PREFIX", say, or a file:// '
                "URL of a disk that all of them mount.",
                url=url,
            ) from None
        types = {name: (meaning, options) for name, (meaning, options) in told["types"].items()}
        return cls(told["key"], told["rule"], types), blobs


def _type(name: str, meaning: str, options: dict[str, Any]) -> Type:
    found = type_of(Column(name, "", "", (), meaning, options))
    if found is None:
        raise AssertionError("types are checked where the preparation begins")
    return found


def write_units(
    blobs: Blobs, task: Task, where: str, batches: Iterable[pa.Table], chunks: int = CHUNKS
) -> list[dict[str, Any]]:
    """Store a task's rows; a description of each unit.

    where    what these rows are, for messages: "partition 3"
    batches  its rows, in any order

    Each has what `put_run` tells, "splits": [name, rows] of each part, "rows", "bytes" (the same
    however rows are put into units), "columns" as JSON, "where", "keys": what `put_run` tells of
    the keys alone, or None. Raises BadInput, and what `put` raises.
    """
    types = {name: _type(name, *each) for name, each in task.types.items()}
    rule = Rule.of(task.rule)
    return [_unit(blobs, task.key, rule, table_of(table, types), where, chunks)
            for table in _cut(batches)]  # fmt: skip


def _cut(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    size = 0
    for each in batches:
        if each.num_rows:
            waiting.append(each)
            size += each.nbytes
        if size >= UNIT_BYTES:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _unit(
    blobs: Blobs, key: str, rule: Rule, given: pa.Table, where: str, chunks: int
) -> dict[str, Any]:
    columns = [column_of(each) for each in given.schema]
    refuse_unknown(columns)
    table = canonical(given, columns)
    rule = for_columns(rule, mark_key(columns, key))
    try:
        names, numbers = _split(table, rule, key)
    except BadInput as error:
        raise BadInput(f"{where}: {error.what}", error.fix, **error.facts) from None
    by_key = pc.sort_indices(table[key]).to_numpy()
    order = by_key[np.argsort(numbers[by_key], kind="stable")] if len(names) > 1 else by_key
    counts = np.bincount(numbers, minlength=len(names)).tolist()
    batch = one_batch(table)
    alone = None
    if not rule.by_key:
        alone = put_run(blobs, batch.select([key]), by_key, [len(by_key)], key, chunks)
    return {
        **put_run(blobs, batch, order, counts, key, chunks),
        "splits": [list(each) for each in zip(names, counts, strict=True)],
        "rows": batch.num_rows,
        "bytes": size_of(table, columns),
        "columns": [asdict(each) for each in columns],
        "where": where,
        "keys": alone,
    }


def _split(table: pa.Table, rule: Rule, key: str) -> tuple[list[str], Any]:
    """Names of splits, and for each row the number of its own. Raises BadInput: a row without a
    key or a split."""
    hashes = None
    if table[key].null_count or rule.by_hash:
        hashes = key_hashes(column_texts(table, key, "the key column"))
    names = found_names(rule, table)
    return names, assign(rule, table, hashes, names)


def with_key(table: pa.Table, key: KeyFunction | None, entry: str) -> pa.Array:
    """The column `KEY` of some rows: what the function says, or a hash of their content.

    entry  what the function is called
    Raises Passing: what the function raised or answered, columns that no version can hold.
    """
    if not table.num_rows:
        return pa.array([], pa.string())

    def asked(row: dict[str, Any]) -> Any:
        assert key is not None
        try:
            return key(row)
        except Exception as error:
            raise failed(error, entry) from error

    try:
        known = table_of(table)
        columns = [column_of(each) for each in known.schema]
        texts = key_texts(known, columns, None if key is None else asked)
    except PenstockError as error:
        raise Passing(error) from error
    return pa.array(texts, pa.string())
