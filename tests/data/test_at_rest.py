"""Shards at rest: the format that the rows ask for, readable by anyone, equal for equal rows."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.blobs import Blobs
from penstock.data import read_rows, read_split
from penstock.data.arrow_files import PAGE, one_batch, open_batch, pieces, spread
from penstock.data.at_rest import shard_format
from penstock.data.columns import Column, column_of_type, tensor_array

ROWS = 5000


def table(rows: int = ROWS) -> pa.Table:
    ids = np.arange(rows)
    return pa.table(
        {
            "id": ids,
            "x": tensor_array((ids[:, None, None] + np.zeros((1, 3, 5))).astype("f4")),
            "flag": pa.array(ids % 3 == 0, mask=ids % 7 == 0),
            "mask": tensor_array((ids[:, None] % 5 > np.arange(4)).astype("u1")),
            "text": [f"t{i}" if i % 3 else None for i in range(rows)],
            "list": [list(range(i % 4)) for i in range(rows)],
            "when": pa.array(ids, pa.timestamp("us")),
        }
    )


def file_of(some: pa.Table) -> bytes:
    return b"".join(pieces(one_batch(some)))


@pytest.mark.parametrize(("start", "rows"), [(0, ROWS), (3, 100), (0, 1), (7, 4500), (9, 0)])
def test_an_arrow_file_is_laid_out_in_pages_and_reads_back(start: int, rows: int) -> None:
    some = table().slice(start, rows)
    data = pa.py_buffer(file_of(some))
    batch = open_batch(data)
    batch.validate(full=True)
    assert batch.equals(one_batch(some))
    assert pa.ipc.open_file(data).read_all().equals(some)
    for column in batch.columns:
        for buffer in (column.storage if hasattr(column, "storage") else column).buffers():
            if buffer is not None and buffer.size >= PAGE:
                assert (buffer.address - data.address) % PAGE == 0


@given(cuts=st.lists(st.integers(0, ROWS), max_size=6))
def test_equal_rows_give_equal_bytes_however_they_came(cuts: list[int]) -> None:
    whole = table()
    ends = [0, *sorted(cuts), ROWS]
    parts = [
        whole.slice(low, high - low).take(pa.array(np.arange(high - low)))
        for low, high in pairwise(ends)
    ]
    assert file_of(pa.concat_tables(parts)) == file_of(whole)
    assert file_of(pa.concat_tables([whole, whole]).slice(ROWS)) == file_of(whole)


def test_large_columns_in_parts_are_written_without_being_joined() -> None:
    whole = pa.table({"id": np.arange(9000), "x": tensor_array(np.ones((9000, 3, 99), "f4"))})
    whole = whole.append_column("text", pa.array([f"t{i}" for i in range(9000)]))
    parts = pa.concat_tables([whole.slice(5, 2000), whole.slice(2005, 1), whole.slice(2006)])
    laid = pieces(spread(parts))
    assert b"".join(laid) == file_of(whole.slice(5))
    (values,) = [column for column in parts["x"].chunk(1).storage.flatten().buffers() if column]
    lies = [memoryview(part) for part in laid if part.nbytes == 99 * 3 * 4]
    assert np.shares_memory(np.frombuffer(lies[0], "u1"), np.frombuffer(values, "u1"))


def test_others_read_the_file(tmp_path: Any) -> None:
    pl = pytest.importorskip("polars")
    some = table().select(["id", "flag", "text", "list", "when"])
    assert pl.read_ipc(io.BytesIO(file_of(some))).to_dict(as_series=False) == some.to_pydict()


def formats(columns: dict[str, Any]) -> str:
    batch = one_batch(pa.table(columns))
    return shard_format(batch, [column_of_type(f.name, f.type) for f in batch.schema])


def test_the_rows_say_how_they_are_kept() -> None:
    chance = np.random.default_rng(0)
    ids = np.arange(100)
    assert formats({"id": ids, "x": chance.random(100), "y": chance.random(100)}) == "parquet"
    assert formats({"id": ids, "text": ["a long story " * 9] * 100}) == "parquet"
    assert formats({"id": ids, "tokens": tensor_array(np.zeros((100, 64), "i4"))}) == "mapped"
    assert formats({"id": ids, "pixels": tensor_array(np.zeros((100, 64), "u1"))}) == "arrow"
    assert formats({"id": ids, "photo": [chance.bytes(1000) for _ in ids]}) == "arrow"
    assert formats({"id": ids, "page": [b"<p>words</p>" * 99] * 100}) == "parquet"
    assert formats({"id": ids, "b": pa.array([b""] * 100), "n": pa.nulls(100, pa.binary())})
    assert shard_format(one_batch(pa.table({"m": tensor_array(np.zeros((9, 64), "u1"))})), [
        Column("m", "tensor", "bool", (64,))
    ]) == "parquet"  # fmt: skip


def test_features_and_text_are_parquet_that_anyone_can_read(make: Any, blobs: Blobs) -> None:
    rows = {"id": np.arange(100), "name": np.array([f"n{i}" for i in range(100)])}
    data = make(blobs, rows, shard_rows=17)
    assert data.shards[1].format == "parquet"
    file = pq.ParquetFile(pa.BufferReader(blobs.get(data.shards[1].digest)))
    group = file.metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert columns["id"].compression == "ZSTD"
    assert (columns["id"].statistics.min, columns["id"].statistics.max) == (17, 33)
    assert columns["name"].statistics.min == "n17"


def test_tensors_are_arrow_that_anyone_can_read(make: Any, blobs: Blobs) -> None:
    data = make(blobs, shard_rows=17)
    assert {shard.format for shard in data.shards} == {"arrow"}
    found = pa.ipc.open_file(blobs.get(data.shards[1].digest)).read_all()
    assert found["id"].to_pylist() == list(range(17, 34))
    assert found.schema.field("image").type == pa.fixed_shape_tensor(pa.float32(), [2, 3])
    assert found.schema.field("odd").type == pa.bool_()
    assert found.equals(read_rows(blobs, data, "all", start=17, stop=34))


def test_every_shard_and_column_has_its_statistics(make: Any, blobs: Blobs) -> None:
    rows = [
        {"id": i, "x": [0.5, None, float("nan")][i % 3], "t": "ab"[: i % 3], "v": np.array([i, -i]),
         "f": i == 5, "h": np.float16(i)}
        for i in range(60)
    ]  # fmt: skip
    data = make(blobs, rows, shard_rows=30)
    table = data.table("statistics").to_pylist()
    found = {(row["number"], row["column"]): row for row in table}
    assert len(table) == 2 * 6
    assert (found[1, "id"]["min"], found[1, "id"]["max"], found[1, "id"]["nulls"]) == (30, 59, 0)
    assert (found[0, "x"]["min"], found[0, "x"]["max"], found[0, "x"]["nulls"]) == (0.5, 0.5, 10)
    assert (found[0, "t"]["min"], found[0, "t"]["max"]) == (0, 2)
    assert (found[1, "v"]["min"], found[1, "v"]["max"]) == (-59, 59)
    assert (found[1, "f"]["max"], found[1, "h"]["max"]) == (0, 59)


def test_shards_cut_by_bytes_have_whole_steps_of_rows(make: Any, blobs: Blobs) -> None:
    data = make(blobs, {"id": np.arange(20_000), "x": np.zeros((20_000, 4))}, shard_bytes=200_000)
    assert [shard.rows % 4096 for shard in data.shards[:-1]] == [0] * (len(data.shards) - 1)
    assert len(data.shards) > 2
    assert read_split(blobs, data, "all")["id"].to_pylist() == list(range(20_000))
