"""The manifest and its tables, read back as they were written, by this Penstock or a later one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.base.errors import Damaged, NewerSchema, NotFound
from penstock.blobs import Blobs
from penstock.data import Manifest, Shard, read_manifest
from penstock.data.manifest import ipc, write_manifest


def test_a_manifest_comes_back_as_it_was_written(make: Any, blobs: Blobs) -> None:
    data = make(blobs, rows=1000, shard_rows=30, splits={"z": 0.5, "a": 0.3, "m": 0.2})
    again = read_manifest(blobs, data.digest)
    assert list(again.splits) == ["z", "a", "m"]  # as given, not as JSON sorts
    for name in (
        "digest", "columns", "key", "splits", "statistics", "lineage", "checks", "notes", "tables",
        "format",
    ):  # fmt: skip
        assert getattr(again, name) == getattr(data, name)
    assert list(again.shards) == list(data.shards)
    assert again.refs == data.refs
    assert all(blobs.exists(digest) for digest in again.refs)


def test_equal_rows_give_an_equal_manifest(make: Any, blobs: Blobs) -> None:
    assert make(blobs, rows=100).digest == make(blobs, rows=100).digest
    assert make(blobs, rows=100).digest != make(blobs, rows=101).digest


def test_shards_are_found_by_split_and_row(make: Any, blobs: Blobs) -> None:
    data = make(blobs, rows=1000, shard_rows=30, splits={"z": 0.5, "a": 0.5})
    for name, split in data.splits.items():
        shards = data.shards_of(name)
        assert [shard.number for shard in shards] == list(range(split.shards))
        assert {shard.split for shard in shards} == {name}
        assert data.ends_of(name)[-1] == split.rows
        assert sum(shard.bytes for shard in shards) == split.bytes
        assert isinstance(shards[-1], Shard)
        assert len(shards[:2]) == 2
    with pytest.raises(IndexError):
        data.shards[len(data.shards)]
    with pytest.raises(NotFound):
        data.shards_of("b")


def test_the_shard_table_is_arrow_that_anyone_can_read(make: Any, blobs: Blobs) -> None:
    data = make(blobs, rows=100, shard_rows=30)
    table = pa.ipc.open_file(
        blobs.get(json.loads(blobs.get(data.digest))["tables"]["shards"])
    ).read_all()
    assert table["digest"].to_pylist() == data.shards.digests()
    assert table["rows"].to_pylist() == [30, 30, 30, 10]


def rewritten(blobs: Blobs, digest: str, **changes: Any) -> str:
    return blobs.put(json.dumps(json.loads(blobs.get(digest)) | changes).encode())


def test_a_newer_format_is_refused(make: Any, blobs: Blobs) -> None:
    newer = rewritten(blobs, make(blobs).digest, format=3, columns="described otherwise")
    with pytest.raises(NewerSchema, match="has format 3; this Penstock reads 2"):
        read_manifest(blobs, newer)


def test_fields_that_are_added_within_a_format_are_passed_over(make: Any, blobs: Blobs) -> None:
    data = make(blobs)
    assert read_manifest(blobs, rewritten(blobs, data.digest, later=1)).splits == data.splits


@pytest.mark.parametrize("data", [b"{}", b"[]", b"\xff\x00", b'{"kind": "model", "format": 1}'])
def test_a_blob_that_is_no_manifest_is_damaged(blobs: Blobs, data: bytes) -> None:
    with pytest.raises(Damaged, match="not the manifest of a dataset"):
        read_manifest(blobs, blobs.put(data))


def test_a_manifest_that_lacks_a_part_is_damaged(make: Any, blobs: Blobs) -> None:
    with pytest.raises(Damaged, match="does not parse"):
        read_manifest(blobs, rewritten(blobs, make(blobs).digest, splits=3))


@pytest.mark.parametrize("table", [b"no Arrow", ipc(pa.table({"split": ["all"]}))])
def test_a_shard_table_that_does_not_parse_is_damaged(make: Any, blobs: Blobs, table: Any) -> None:
    other = rewritten(blobs, make(blobs).digest, tables={"shards": blobs.put(table)})
    with pytest.raises(Damaged, match=r"a table of dataset manifest .* does not parse"):
        read_manifest(blobs, other)

    for tables in ({}, {"shards": "../../etc/passwd"}):
        with pytest.raises(Damaged, match="not named by a digest"):
            read_manifest(blobs, rewritten(blobs, make(blobs).digest, tables=tables))


def test_a_manifest_of_format_1_is_read(make: Any, blobs: Blobs) -> None:
    data = make(blobs, rows=100, shard_rows=30)
    stored = json.loads(blobs.get(data.digest))
    shards = blobs.put(ipc(data.shards.table.drop_columns("format")))
    older = {k: v for k, v in stored.items() if k not in ("tables", "notes")}
    digest = blobs.put(json.dumps(older | {"format": 1, "shard_table": shards}).encode())
    again = read_manifest(blobs, digest)
    assert again.format == 1
    assert {shard.format for shard in again.shards} == {"parquet"}
    assert [shard.digest for shard in again.shards] == data.shards.digests()
    assert again.refs == [digest, shards, *data.shards.digests()]


def written(blobs: Blobs, data: Manifest, **changes: Any) -> Manifest:
    """The same version, written again with other parts."""
    parts = {
        "columns": data.columns,
        "key": data.key,
        "splits": list(data.splits.values()),
        "shards": data.shards.table,
        "statistics": data.statistics,
        "lineage": data.lineage,
        "checks": data.checks,
    }
    return write_manifest(blobs, **(parts | changes))


def test_tables_and_notes_go_with_the_version(make: Any, blobs: Blobs) -> None:
    photo = blobs.put(b"a photograph")
    tables = {
        "inputs": pa.table({"name": ["a.csv"], "bytes": [3]}),
        "objects": pa.table({"digest": [photo]}),
    }
    data = written(blobs, make(blobs), tables=tables, notes={"steps": ["scale"]})
    again = read_manifest(blobs, data.digest)
    assert again.notes == {"steps": ["scale"]}
    assert again.table("inputs").equals(tables["inputs"])
    assert again.table("nothing") is None
    assert {photo, *again.tables.values()} < set(again.refs)


def test_a_version_of_very_many_shards_stays_a_table(make: Any, blobs: Blobs) -> None:
    many = 100_000
    data = make(blobs)
    one = data.shards[0]
    table = pa.table(
        {
            "split": pa.repeat("all", many),
            "number": pa.array(np.arange(many)),
            "digest": pa.array([f"sha256:{i:064x}" for i in range(many)]),
            "rows": pa.repeat(one.rows, many),
            "bytes": pa.repeat(one.bytes, many),
            "format": pa.repeat("arrow", many),
        }
    )
    split = replace(data.splits["all"], rows=one.rows * many, shards=many)
    before = pa.total_allocated_bytes()
    again = read_manifest(blobs, written(blobs, data, shards=table, splits=[split]).digest)
    assert len(again.shards) == many and again.shards[-1].format == "arrow"
    assert again.ends_of("all")[-1] == one.rows * many
    assert sum(1 for _ in again.shards_of("all")) == many
    assert pa.total_allocated_bytes() - before < 40 << 20
    assert len(again.refs) == many + 2


def test_a_damaged_manifest_is_never_half_read(make: Any, blobs: Blobs, damage: Any) -> None:
    data = make(blobs)
    damage(data.digest)
    with pytest.raises(Damaged):
        read_manifest(blobs, data.digest)
    with pytest.raises(NotFound):
        read_manifest(blobs, "sha256:" + "0" * 64)
