"""Shards that Spark itself reads: Parquet at rest, or Parquet too, in files that executors reach.

So no row passes through Python, and Spark reads the columns alone that a query needs, and cuts
partitions as it does. Its JVM knows nothing of our hashes; it compares every page that it reads
with the CRC-32 that was written with it. What it would read otherwise than we do (see
`spark_files`) goes through `source.py`.

It passes over no rows by the files' own statistics: a shard is one row group, which `filters.py`
knows all about; Spark would lose NaN, which is greater than all to it and in no statistics, and
times of which its filters drop the microseconds; and no CRC covers what these statistics say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.blobs import Blobs
from penstock.data.columns import Column
from penstock.data.manifest import Shard
from penstock.data.spark.types import spark_fields

_PLAIN = ("number", "text", "bytes", "time")
_ITS_OWN = ("float16", "date64", "duration")  # dtypes that it reads otherwise
_SHARED = ("int32", "int64", "float32", "float64")  # as they are in lists
_GLOB = set("{}[]*?\\")
# Nothing is passed over, whatever the session says, and dates are of one calendar.
_OPTIONS = {
    "ignoreCorruptFiles": "false",
    "ignoreMissingFiles": "false",
    "mergeSchema": "false",
    "datetimeRebaseMode": "CORRECTED",
    "parquet.page.verify-checksum.enabled": "true",
    "parquet.filter.stats.enabled": "false",
    "parquet.filter.dictionary.enabled": "false",
    "parquet.filter.columnindex.enabled": "false",
}


def spark_files(
    blobs: Blobs, shards: Sequence[Shard], wanted: Sequence[Column], columns: Sequence[Column]
) -> list[str] | None:
    """The shards' files; None where Spark is not to read them by itself.

    wanted   columns that are read
    columns  all that the shards have: names that differ by case alone are the same to Spark

    Raises NotFound where a blob is not there.
    """
    names = {each.name.casefold() for each in columns}
    formats = {each.format for each in shards}
    if not shards or len(names) < len(columns) or not formats <= {"parquet", "mapped"}:
        return None
    if not all(_is_plain(each) or (formats == {"mapped"} and _is_shared(each)) for each in wanted):
        return None
    paths = [blobs.path(each.digest) for each in shards]
    found = [str(each) for each in paths if each is not None]
    if len(found) < len(paths) or _GLOB & set("".join(found)):
        return None
    return [f"file://{each}" for each in found]


def _is_plain(column: Column) -> bool:
    """Whether Spark makes of its Parquet what `spark_fields` says."""
    return (
        column.kind in _PLAIN
        and not column.dtype.startswith(_ITS_OWN)
        and not column.dtype.startswith("timestamp[ns")
    )


def _is_shared(column: Column) -> bool:
    """Whether it may be a column of lists in lists in shards that are mapped, too."""
    return column.kind in ("tensor", "list") and column.dtype in _SHARED


def read_files(spark: Any, files: Sequence[str], columns: Sequence[Column]) -> Any:
    """A DataFrame of these columns."""
    from pyspark.sql.types import StructType

    schema = StructType.fromJson({"type": "struct", "fields": spark_fields(columns)})
    return spark.read.schema(schema).options(**_OPTIONS).parquet(*files)
