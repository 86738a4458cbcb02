"""Shards that are Parquet and Arrow at once: both ways of reading give the same rows."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.base.layout import Layout
from penstock.blobs import Blobs, open_blobs
from penstock.blobs.local import LocalBlobs
from penstock.data import Loader, thrift
from penstock.data.arrow_files import PAGE, open_batch
from penstock.data.at_rest import decode, store_shard
from penstock.data.columns import Column, canonical, column_of_type, tensor_array
from penstock.data.mapped import arrow_part
from penstock.data.reading import read_split
from penstock.data.shard_parts import parts_of, read_part

ROWS = 3000


def table(rows: int = ROWS) -> pa.Table:
    """Mostly numbers that both formats keep alike, and something of all else."""
    chance = np.random.default_rng(0)
    at = np.arange(rows)
    return pa.table(
        {
            "id": at,
            "name": [f"n{i}" if i % 3 else None for i in range(rows)],
            "vector": tensor_array(chance.random((rows, 256), "f4")),
            "cube": tensor_array(chance.integers(-(1 << 40), 1 << 40, (rows, 2, 3, 4))),
            "one": tensor_array(chance.random((rows, 1))),
            "tokens": pa.array([list(range(i % 7 + 1)) for i in range(rows)], pa.list_(pa.int32())),
            "flag": [None if i % 5 == 0 else i % 2 == 0 for i in range(rows)],
            "time": pa.array(at, pa.timestamp("us", tz="UTC")),
        }
    )


def columns_of(rows: pa.Table) -> list[Column]:
    return [column_of_type(each.name, each.type) for each in rows.schema]


def stored(blobs: Blobs, rows: pa.Table) -> bytes:
    columns = columns_of(rows)
    found = store_shard(blobs, canonical(rows, columns), columns)
    assert found.format == "mapped"
    data = blobs.get(found.digest)
    assert len(data) == found.bytes
    return data


def plain(rows: pa.Table) -> dict[str, list[Any]]:
    """Values as Parquet has them: tensors as lists in lists."""
    return {
        each: values.combine_chunks().to_numpy_ndarray().tolist()
        if isinstance(values.type, pa.FixedShapeTensorType)
        else values.to_pylist()
        for each, values in zip(rows.column_names, rows.columns, strict=True)
    }


def as_parquet(data: bytes) -> dict[str, list[Any]]:
    return pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True).read().to_pydict()


def test_the_codec_gives_back_what_parquet_s_writer_wrote() -> None:
    many = {f"n{i}": [True, None, False] for i in range(40)}
    rows = pa.table({"x": [1.5, None, -2.0], "text": ["a", "b" * 300, None], **many})
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, write_page_index=True)
    data = sink.getvalue().to_pybytes()
    (length,) = struct.unpack_from("<I", data, len(data) - 8)
    footer = data[-8 - length : -8]
    tree = thrift.decode(footer)
    assert tree[3].value == 3 and thrift.encode(tree) == footer
    for end in (0, 1, length // 2):
        with pytest.raises((ValueError, IndexError)):
            thrift.decode(footer[:end])


def test_both_give_the_rows_however_they_came(blobs: Blobs) -> None:
    rows = table()
    data = stored(blobs, rows)
    assert as_parquet(data) == plain(rows)
    assert decode(data, "mapped", "x").to_pydict() == rows.to_pydict()
    some = decode(data, "mapped", "x", ["cube", "id"])
    assert some.to_pydict() == rows.select(["cube", "id"]).to_pydict()
    parts = pa.concat_tables([rows.slice(0, 7), rows.slice(7, 2000), rows.slice(2007)])
    assert stored(blobs, parts) == data


SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@settings(deadline=None, max_examples=80)
@given(
    SHAPES,
    st.integers(1, 40),
    st.sampled_from(["int32", "int64", "float32", "float64"]),
    st.lists(st.integers(1, 200), min_size=1, max_size=40),
)
def test_levels_of_any_shape_and_length(
    tmp_path_factory: pytest.TempPathFactory,
    shape: Sequence[int],
    rows: int,
    dtype: str,
    lengths: list[int],
) -> None:
    blobs = open_blobs(f"file://{tmp_path_factory.mktemp('blobs')}")
    size = rows * int(np.prod(shape))
    values = np.arange(size, dtype=dtype).reshape(rows, *shape)
    found = pa.table({"x": tensor_array(values)})
    assert as_parquet(stored(blobs, found)) == {"x": values.tolist()}
    lists = [list(range(each)) for each in lengths]
    kind = pa.from_numpy_dtype(np.dtype(dtype))
    found = pa.table({"l": pa.array(lists, pa.list_(kind))}).slice(len(lists) // 2)
    assert as_parquet(stored(blobs, found)) == found.to_pydict()


@pytest.mark.parametrize(
    "odd",
    [
        tensor_array(np.zeros((9, 300), "u1")),
        tensor_array(np.zeros((9, 300), "f2")),
        pa.array([[1, 2] * 200] * 8 + [[]], pa.list_(pa.int32())),
        pa.array([[1, 2] * 200] * 8 + [None], pa.list_(pa.int32())),
        pa.array([[1, 2] * 200] * 8 + [[None]], pa.list_(pa.int32())),
        pa.array([np.random.default_rng(i).bytes(999) for i in range(9)]),
    ],
    ids=["bytes", "halves", "empty", "missing", "gap", "photos"],
)
def test_what_parquet_would_keep_otherwise_stays_arrow(blobs: Blobs, odd: pa.Array) -> None:
    rows = pa.table({"id": range(9), "odd": odd, "v": tensor_array(np.zeros((9, 512), "f4"))})
    columns = columns_of(rows)
    found = store_shard(blobs, rows, columns)
    assert found.format == "arrow"
    assert decode(blobs.get(found.digest), "arrow", "x")["odd"].equals(rows["odd"])


def test_much_that_would_be_there_twice_stays_arrow(blobs: Blobs) -> None:
    rows = pa.table({"v": tensor_array(np.zeros((9, 64), "f4")), "text": ["a" * 200] * 9})
    assert store_shard(blobs, rows, columns_of(rows)).format == "arrow"


def test_values_are_in_the_file_once_and_are_mapped_as_they_lie(blobs: Blobs) -> None:
    rows = table().select(["id", "vector"])
    data = stored(blobs, rows)
    values = rows["vector"].chunk(0).storage.flatten().to_numpy().tobytes()
    assert data.count(values) == 1 and len(data) < 1.02 * len(values) + 5 * PAGE
    buffer = pa.py_buffer(data)
    batch = open_batch(arrow_part(buffer))
    for number, name in enumerate(rows.column_names):
        for each in filter(None, batch.column(number).buffers()):
            place = each.address - buffer.address
            assert 0 <= place < len(data), f"{name} is a copy"
            assert place % (PAGE if each.size >= PAGE else 64) == 0


def test_whoever_cuts_files_finds_the_rows(blobs: Blobs) -> None:
    """Spark looks for a row group half its size behind its first column (parquet-java)."""
    data = stored(blobs, table())
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    sizes = [group.column(i).total_compressed_size for i in range(group.num_columns)]
    assert group.column(0).data_page_offset + sum(sizes) // 2 < len(data)


def test_others_read_the_file(blobs: Blobs, tmp_path: Path) -> None:
    """Readers of Parquet that are not Arrow's."""
    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    rows = table().select(["id", "name", "vector", "cube", "tokens", "flag"])
    path = tmp_path / "shard.parquet"
    path.write_bytes(stored(blobs, rows))
    found = polars.read_parquet(path).to_dict(as_series=False)
    assert {name: found[name] for name in rows.column_names} == plain(rows)
    found = duckdb.sql(f"SELECT {', '.join(rows.column_names)} FROM '{path}'").fetchall()
    assert [list(row) for row in found] == list(map(list, zip(*plain(rows).values(), strict=True)))


def test_damage_is_seen_by_both(blobs: Blobs) -> None:
    rows = table()
    columns = columns_of(rows)
    data = bytearray(stored(blobs, rows))
    at = data.index(rows["vector"].chunk(0).storage.flatten().to_numpy()[5000:5004].tobytes())
    data[at] ^= 1
    with pytest.raises(OSError, match="CRC"):
        as_parquet(bytes(data))
    for torn in (data[:-1], data[:-9], data[: len(data) // 2], data[:20], b""):
        with pytest.raises(Exception, match="not a shard of format mapped"):
            decode(bytes(torn), "mapped", "x", [columns[0].name])


def test_versions_of_such_shards_are_read_in_all_ways(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    rows = table(500).drop_columns(["flag"])
    data = make(blobs, rows, shard_rows=200)
    assert [each.format for each in data.shards] == ["mapped"] * 3
    assert read_split(blobs, data, "all").to_pydict() == rows.to_pydict()
    some = [each for each in data.columns if each.name in ("id", "cube")]
    found = [
        piece for part in parts_of(data, "all", some) for piece in read_part(blobs, part, some)
    ]
    assert pa.concat_tables(found).to_pydict() == rows.select(["id", "cube"]).to_pydict()
    loader = Loader(blobs, layout, data, "all", batch_size=100, name="both@1")
    cubes = rows["cube"].combine_chunks().to_numpy_ndarray()
    seen = []
    for each in loader:
        seen += each["id"].tolist()
        assert np.array_equal(np.asarray(each["cube"]), cubes[each["id"]])
    assert sorted(seen) == list(range(500))
    assert list(layout.shards.glob("v2/*.arrow")) == []  # nothing was copied into the cache


def test_a_far_shard_is_kept_as_it_is(make: Any, blobs: Blobs, layout: Layout) -> None:
    rows = table(500).drop_columns(["flag"])
    data = make(blobs, rows, shard_rows=200)
    far = Far(Path(blobs.url.removeprefix("file://")))
    loader = Loader(far, layout, data, "all", batch_size=100, name="both@1")
    assert sorted(i for each in loader for i in each["id"].tolist()) == list(range(500))
    assert len(list(layout.shards.glob("v2/*.arrow"))) == 3


class Far(LocalBlobs):
    """A store whose files are not ours to map."""

    def path(self, digest: str) -> Path | None:
        return None
