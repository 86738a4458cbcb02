"""Which shards Spark reads by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock.blobs import Blobs, open_blobs
from penstock.data.columns import Column
from penstock.data.manifest import Shard
from penstock.data.spark.parquet import spark_files

NUMBER = Column("x", "number", "int64")


def shard(blobs: Blobs, format: Any = "parquet") -> Shard:
    return Shard("all", 0, blobs.put(b"rows"), 1, 4, format)


@pytest.mark.parametrize(
    ("columns", "own"),
    [
        ([NUMBER, Column("y", "text", "string"), Column("z", "bytes", "binary")], True),
        ([Column("x", "time", "timestamp[us, tz=UTC]"), Column("y", "time", "date32[day]")], True),
        ([NUMBER, Column("X", "number", "int64")], False),
        ([Column("x", "time", "timestamp[ns]")], False),
        ([Column("x", "time", "duration[us]")], False),
        ([Column("x", "time", "date64[ms]")], False),
        ([Column("x", "number", "float16")], False),
        ([NUMBER, Column("y", "list", "float32")], False),
        ([Column("x", "tensor", "float32", (3,))], False),
    ],
)
def test_columns_that_spark_reads_as_we_do(
    tmp_path: Path, columns: list[Column], own: bool
) -> None:
    blobs = open_blobs(f"file://{tmp_path}/blobs")
    found = spark_files(blobs, [shard(blobs)], columns, columns)
    assert (found is not None) == own
    if found is not None:
        (name,) = found
        assert Path(name.removeprefix("file://")).read_bytes() == b"rows"


@pytest.mark.parametrize(
    ("column", "own"),
    [
        (Column("y", "list", "float32"), True),
        (Column("y", "tensor", "int64", (2, 3)), True),
        (Column("y", "list", "uint32"), False),
        (Column("y", "tensor", "uint8", (3,)), False),
    ],
)
def test_lists_are_read_from_shards_that_are_both(
    tmp_path: Path, column: Column, own: bool
) -> None:
    blobs = open_blobs(f"file://{tmp_path}/blobs")
    both, plain = shard(blobs, "mapped"), shard(blobs)
    columns = [NUMBER, column]
    assert (spark_files(blobs, [both, both], columns, columns) is not None) == own
    assert spark_files(blobs, [both, plain], columns, columns) is None
    assert spark_files(blobs, [both, plain], [NUMBER], columns) is not None


def test_files_that_spark_reaches(tmp_path: Path) -> None:
    blobs = open_blobs(f"file://{tmp_path}/blobs")
    one, both = [NUMBER], [NUMBER, Column("X", "number", "int64")]
    assert spark_files(blobs, [], one, one) is None
    assert spark_files(blobs, [shard(blobs), shard(blobs, "arrow")], one, one) is None
    assert spark_files(blobs, [shard(blobs)], one, both) is None
    odd = open_blobs(f"file://{tmp_path}/a[b]")
    assert spark_files(odd, [shard(odd)], one, one) is None
    memory = open_blobs("memory://")
    assert spark_files(memory, [shard(memory)], one, one) is None
