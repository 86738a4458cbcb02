"""A DataFrame becomes a version: the script's side.

Two jobs. The first writes the rows through the data source (`source.UnitWriter`), as sorted runs;
Spark commits it into memory of this script's, which it opens as a file. The second merges these
into shards: Spark itself sorts nothing and shuffles nothing. Both may be tried again or run twice
by Spark: blobs are named by their content, and only what tasks told whose attempts count is used.
The version is one row, which the script commits.

Each shard is merged from some rows of each run, so that work grows with the square of the rows.
Beyond `_SORTED` it is Spark that sorts, and runs that hardly overlap.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.blobs import Blobs, open_blobs
from penstock.data.clusters.port import ClusterRows
from penstock.data.clusters.refusing import refuse_near_blobs
from penstock.data.clusters.sending import results
from penstock.data.clusters.shelving import shelved
from penstock.data.clusters.units import CHUNKS, FEW_CHUNKS, with_key
from penstock.data.clusters.version import make_version
from penstock.data.keys import KEY, KeyFunction
from penstock.data.preparation.past import Prepared
from penstock.data.preparation.steps import entry_of
from penstock.data.spark.session import (
    check_session,
    estimated_bytes,
    is_local,
    need_pyspark,
    spoken,
)
from penstock.data.spark.types import arrow_schema_of, moments_in_utc
from penstock.data.types import Types

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores

Batches = Iterable[pa.RecordBatch]
_ROUNDS, _MOST = 4, 16  # tasks for each core, shards of a task
_SORTED = 32 << 30  # bytes of a frame, as Spark estimates them


class DataFrameRows:
    """The rows of a DataFrame, as `ClusterRows` has them. frame is not changed."""

    label = "a DataFrame of Spark's"
    unique = "Drop the repeated rows (df.dropDuplicates([…])), or take another key."

    def __init__(self, frame: Any, stores: Stores) -> None:
        self._frame, self._stores = frame, stores
        self._spark = frame.sparkSession

    def schema(self) -> pa.Schema:
        return arrow_schema_of(self._frame.schema.fields)

    def check(self, stores: Stores) -> None:
        check_session(self._spark)
        refuse_near_blobs(stores, is_local(self._spark))

    def keyed(self, key: KeyFunction | None) -> ClusterRows:
        from pyspark.sql.types import StringType, StructType

        schema = StructType([*self._frame.schema.fields]).add(KEY, StringType())
        frame = self._frame.mapInArrow(_keying(key), schema)
        return DataFrameRows(frame, self._stores)

    def units(self, task: str, key: str) -> list[dict[str, Any]]:
        from penstock.data.spark.source import NAME, PenstockSource

        self._spark.dataSource.register(PenstockSource)
        with os.fdopen(os.memfd_create("penstock-units")) as report:  # nothing is left by SIGKILL
            place = f"/proc/{os.getpid()}/fd/{report.fileno()}"
            options = {"blobs": self._stores.blobs.url, "task": task, "report": place}
            frame, chunks = self._frame, CHUNKS
            if estimated_bytes(frame) > _SORTED:
                frame, chunks = frame.sort("`" + key.replace("`", "``") + "`"), FEW_CHUNKS
            writer = frame.write.format(NAME).mode("append").options(**options, chunks=str(chunks))
            spoken(writer.save)
            return results(json.load(report))

    def shards(
        self, task: str, payloads: Sequence[dict[str, Any]], shared: dict[str, Any]
    ) -> list[dict[str, Any]]:
        count = len(payloads)
        numbers = self._spark.range(0, count, 1, self._tasks(count))
        work = _shelving(self._stores.blobs, task, payloads, shared)
        rows = spoken(numbers.mapInArrow(work, "number long, told string").collect)
        found = {row["number"]: json.loads(row["told"]) for row in rows}
        return results(found[number] for number in range(count))

    def _tasks(self, shards: int) -> int:
        """How many tasks write some shards: each costs a Python process 0.1 s before it begins, and
        all of a task's are written again if it dies."""
        rounds = _ROUNDS * int(self._spark.sparkContext.defaultParallelism)
        return min(shards, max(rounds, -(-shards // _MOST)))


def write(
    stores: Stores,
    frame: Any,
    name: str,
    *,
    key: str | KeyFunction | None = None,
    splits: Any = None,
    by: str | None = None,
    types: Types | None = None,
    on_progress: Callable[..., None] | None = None,
) -> Prepared:
    """See `make_version`. Raises BadInput for what is no DataFrame of a classic session."""
    need_pyspark()
    if not hasattr(frame, "sparkSession"):
        raise BadInput(
            f"this is a {type(frame).__name__}, not a DataFrame of Spark's",
            "Pass the DataFrame; ps.prepare takes files, functions and datasets.",
        )
    check_session(frame.sparkSession)
    rows = DataFrameRows(frame, stores)
    return make_version(
        stores, name, rows, key=key, splits=splits, by=by, types=types, on_progress=on_progress
    )


# what Spark's Python processes are sent: functions, by value


def _keying(key: KeyFunction | None) -> Callable[[Batches], Iterator[pa.RecordBatch]]:
    entry = "" if key is None else entry_of(key)[0]

    def add(batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            table = pa.Table.from_batches([batch])
            keys = with_key(moments_in_utc(table), key, entry)
            yield from table.append_column(KEY, keys).combine_chunks().to_batches()

    return add


def _shelving(
    blobs: Blobs, task: str, payloads: Sequence[dict[str, Any]], shared: dict[str, Any]
) -> Callable[[Batches], Iterator[pa.RecordBatch]]:
    """The payloads are one blob, of which each task reads its own: it is sent to none."""
    lines = [json.dumps(each).encode() for each in [shared, *payloads]]
    ends = [0, *accumulate(map(len, lines))]
    plan, url = blobs.put(b"".join(lines)), blobs.url

    def write(batches: Batches) -> Iterator[pa.RecordBatch]:
        store = open_blobs(url)

        def line(number: int) -> dict[str, Any]:
            start, end = ends[number], ends[number + 1]
            return dict(json.loads(store.read(plan, start, end - start)))

        for batch in batches:
            numbers = batch.column(0).to_pylist()
            texts = [
                json.dumps(shelved(url, task, line(number + 1), line(0))) for number in numbers
            ]
            yield pa.RecordBatch.from_pydict(
                {"number": pa.array(numbers, pa.int64()), "told": pa.array(texts, pa.string())}
            )

    return write
