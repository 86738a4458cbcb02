"""What a task does: its rows, in order of their key, into units of the blob store.

A unit is what `preparation.finishing` makes of rows, so that all that is done with those of a map
is done with these too. It has at most some 64 MiB of rows; a task holds one at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.base.errors import BadInput, NotFound, PenstockError
from penstock.base.hashing import canonical_json
from penstock.blobs import Blobs, open_blobs
from penstock.data.at_rest import size_of
from penstock.data.clusters.repeats import plain, repeated
from penstock.data.clusters.sending import Passing
from penstock.data.columns import Column
from penstock.data.keys import KeyFunction, column_texts, key_texts
from penstock.data.preparation.bad import Tally
from penstock.data.preparation.calling import failed
from penstock.data.preparation.finishing import Work, finished
from penstock.data.preparation.fitting import fit_tables
from penstock.data.preparation.settled import table_of
from penstock.data.preparation.sources import BlobSource
from penstock.data.preparation.splitting import Rule
from penstock.data.preparation.tables import column_of
from penstock.data.types import Type, type_of

UNIT_BYTES = 64 << 20  # of Arrow


@dataclass(frozen=True)
class Task:
    """What all tasks are told, by a blob.

    key    the column that names rows
    rule   of the splits, as `Rule.spec` gives it
    types  column -> (meaning, options)
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

    def work(self, blobs: Blobs) -> Work:
        """As `finished` needs it."""
        types = {name: _type(name, *each) for name, each in self.types.items()}
        source = BlobSource(blobs)
        rule = Rule.of(self.rule)
        return Work(source, [], [], self.key, rule, types, "fail", None, ordered=True)


def _type(name: str, meaning: str, options: dict[str, Any]) -> Type:
    found = type_of(Column(name, "", "", (), meaning, options))
    if found is None:
        raise AssertionError("types are checked where the preparation begins")
    return found


class RowPlaces:
    """Where rows stand that came from a task; the caller and the task say the same."""

    def __init__(self, where: str, first: int) -> None:
        self._where, self._first = where, first

    def __call__(self, record: int) -> str:
        return f"{self._where}, row {self._first + record}"

    def of(self, records: Iterable[int]) -> list[str]:
        return [self(each) for each in records]


def write_units(
    blobs: Blobs, task: Task, where: str, batches: Iterable[pa.Table]
) -> list[dict[str, Any]]:
    """Store a task's rows; a description of each unit.

    where    what these rows are, for messages: "partition 3"
    batches  its rows, in order of their key as far as that can be compared

    Beside what `finished` tells: "columns" as JSON, "low" and "high", the least and the greatest
    key, "where", "first": number of its first row, "repeated" (`repeats.py`). Raises BadInput, and
    what `put` raises.
    """
    work = task.work(blobs)
    found = []
    first = 0
    for table in _cut(batches):
        found.append(_unit(blobs, work, table, where, first))
        first += table.num_rows
    return found


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


def _unit(blobs: Blobs, work: Work, given: pa.Table, where: str, first: int) -> dict[str, Any]:
    key = work.key
    assert isinstance(key, str)
    column_texts(given.slice(0, 0), key, "the key column")
    table = in_order(table_of(given, work.types), key)
    places: Any = RowPlaces(where, first)
    tally = Tally("fail")
    tally.records = given.num_rows
    records = np.arange(table.num_rows, dtype=np.int32)
    fit = fit_tables([(table, records)], [], tally, places, None)
    result = finished(blobs, fit, work, tally, places)
    keys = table[key].combine_chunks()
    low, high = (plain(keys[at].as_py()) for at in (0, len(keys) - 1))
    columns = [column_of(each) for each in table.schema]
    return {
        **result,
        "bytes": size_of(table, columns),  # shards are cut by it, so no partition may show in it
        "columns": [asdict(each) for each in columns],
        "records": given.num_rows,
        "low": low,
        "high": high,
        "where": where,
        "first": first,
        "repeated": repeated(keys),
    }


def in_order(table: pa.Table, key: str) -> pa.Table:
    """The rows by their key; as they are where they lie so already, or no key can be compared."""
    values = table[key].combine_chunks()
    if len(values) < 2 or values.null_count or not _comparable(values.type):
        return table
    if pc.all(pc.less_equal(values.slice(0, len(values) - 1), values.slice(1))).as_py():
        return table
    return table.take(pc.sort_indices(values))


def _comparable(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    data = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return bool(text or data or pa.types.is_integer(kind))


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


def told_places(results: Iterable[Mapping[str, Any]]) -> list[RowPlaces]:
    """Of each unit, for the caller."""
    return [RowPlaces(each["where"], each["first"]) for each in results]
