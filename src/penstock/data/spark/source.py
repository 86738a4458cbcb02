"""The data source "penstock" as Spark's Python processes run it: it writes units and reads shards.

`ps.spark.write` and `ps.spark.read` give it its options; by itself it says so. A write fills the
file that its caller reads (option `report`), when Spark commits: what the tasks told whose
attempts count. Blobs of others are rubbish, and so is all that an aborted write stored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.blobs import open_blobs
from penstock.data.clusters.sending import told
from penstock.data.clusters.units import Task, write_units
from penstock.data.columns import Column
from penstock.data.manifest import Manifest, read_manifest
from penstock.data.shard_parts import Part, parts_of, read_part
from penstock.data.source import chosen
from penstock.data.spark.session import missing
from penstock.data.spark.types import as_spark, moments_in_utc, spark_fields

try:
    from pyspark.sql.datasource import (
        DataSource,
        DataSourceArrowWriter,
        DataSourceReader,
        InputPartition,
        WriterCommitMessage,
    )
except ImportError:
    raise missing() from None

NAME = "penstock"


class PenstockSource(DataSource):  # type: ignore[misc]
    """Options of a write: blobs, task, chunks, report; of a read: blobs, manifest, split,
    columns."""

    @classmethod
    def name(cls) -> str:
        return NAME

    def schema(self) -> Any:
        from pyspark.sql.types import StructType

        read = Read.of(self.options)
        fields = spark_fields(read.columns(read.manifest()))
        return StructType.fromJson({"type": "struct", "fields": fields})

    def reader(self, schema: Any) -> ShardReader:
        return ShardReader(Read.of(self.options))

    def writer(self, schema: Any, overwrite: bool) -> UnitWriter:
        url, task, report = (_option(self.options, each) for each in ("blobs", "task", "report"))
        return UnitWriter(url, task, int(_option(self.options, "chunks")), report)


def _option(options: Any, name: str) -> str:
    if (found := options.get(name)) is None:
        raise BadInput(
            f'the data source "{NAME}" has no option "{name}"',
            "Write by ps.spark.write(df, NAME), read by ps.spark.read(spark, REFERENCE).",
        )
    return str(found)


# writing


@dataclass
class Units(WriterCommitMessage):  # type: ignore[misc]
    """What one attempt of a task wrote."""

    told: list[dict[str, Any]]


class UnitWriter(DataSourceArrowWriter):  # type: ignore[misc]
    """url of the blobs; task: digest of the blob that says what to do; chunks: of a unit; report:
    the file."""

    def __init__(self, url: str, task: str, chunks: int, report: str) -> None:
        self._url, self._task, self._chunks, self._report = url, task, chunks, report

    def write(self, iterator: Iterator[pa.RecordBatch]) -> Units:
        """On an executor. Raises Passing."""
        from pyspark import TaskContext

        context = TaskContext.get()
        where = f"partition {0 if context is None else context.partitionId()}"

        def work() -> list[dict[str, Any]]:
            task, blobs = Task.read(self._url, self._task)
            tables = (moments_in_utc(pa.Table.from_batches([each])) for each in iterator)
            return write_units(blobs, task, where, tables, self._chunks)

        return Units(told(work))

    def commit(self, messages: Sequence[Units | None]) -> None:
        """On the driver, once, when every task has an attempt that counts."""
        found = [unit for message in messages if message is not None for unit in message.told]
        Path(self._report).write_text(json.dumps(found))

    def abort(self, messages: Sequence[Units | None]) -> None:
        """Nothing refers to what was stored."""


# reading


@dataclass(frozen=True)
class Read:
    """What is read: of which manifest in which store.

    names   of columns; None for all
    shards  numbers, as runs (first, end); None for all
    """

    url: str
    digest: str
    split: str
    names: tuple[str, ...] | None
    shards: list[list[int]] | None
    verify: bool

    @classmethod
    def of(cls, options: Any) -> Read:
        url, digest, split = (_option(options, each) for each in ("blobs", "manifest", "split"))
        told = json.loads(options.get("columns", "null"))
        shards = json.loads(options.get("shards", "null"))
        verify = options.get("verify") == "true"
        return cls(url, digest, split, None if told is None else tuple(told), shards, verify)

    def manifest(self) -> Manifest:
        return read_manifest(open_blobs(self.url), self.digest)

    def columns(self, manifest: Manifest) -> list[Column]:
        return list(chosen(manifest, self.names))

    def parts(self, manifest: Manifest) -> list[Part]:
        parts = parts_of(manifest, self.split, self.columns(manifest))
        runs = [[0, len(parts)]] if self.shards is None else self.shards
        return [part for first, end in runs for part in parts[first:end]]


class ShardPartition(InputPartition):  # type: ignore[misc]
    """One shard; None for none at all, where Spark would make a partition of its own."""

    def __init__(self, part: Part | None) -> None:
        super().__init__(part)
        self.part = part


class ShardReader(DataSourceReader):  # type: ignore[misc]
    """A partition for each shard that is to be read."""

    def __init__(self, read: Read) -> None:
        manifest = read.manifest()
        self._read = read
        self._columns = read.columns(manifest)
        self._parts = read.parts(manifest)

    def partitions(self) -> list[ShardPartition]:
        """On the driver."""
        found, self._parts = self._parts, []  # the reader goes to each task
        return [ShardPartition(each) for each in found] or [ShardPartition(None)]

    def read(self, partition: ShardPartition) -> Iterator[pa.RecordBatch]:
        """On an executor. Raises Damaged, NotFound, and Unavailable; Spark tries them again."""
        if partition.part is None:
            return
        from pyspark.sql.pandas.types import to_arrow_schema
        from pyspark.sql.types import StructType

        columns = self._columns
        fields = StructType.fromJson({"type": "struct", "fields": spark_fields(columns)})
        schema = to_arrow_schema(fields, timezone="UTC")
        blobs = open_blobs(self._read.url)
        for table in read_part(blobs, partition.part, columns, self._read.verify):
            yield from as_spark(table, columns, schema).to_batches()
