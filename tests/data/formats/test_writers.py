"""Files that others read: whole or not there, and read back as what was written."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from penstock.base.errors import BadInput, Conflict, DiskFull
from penstock.data.columns import Column, arrow_schema, column_of_type, tensor_array
from penstock.data.formats import open_source
from penstock.data.formats.writers import WRITERS, write_files

from .examples import jpeg, read


def plain(rows: int = 100, first: int = 0) -> pa.Table:
    ids = np.arange(first, first + rows)
    return pa.table(
        {
            "id": ids,
            "x": pa.array([None if i % 7 == 0 else i / 3 for i in ids.tolist()], pa.float64()),
            "name": [f'n "{i}", ü\n' for i in ids],
        }
    )


def rich(rows: int = 10) -> pa.Table:
    return pa.table(
        {
            "key": [f"a/{i}.b" for i in range(rows)],
            "pixels": tensor_array(np.arange(rows * 4, dtype=np.float32).reshape(rows, 2, 2)),
            "picture": [jpeg(i) for i in range(rows)],
            "when": [dt.datetime(2024, 1, 1 + i) for i in range(rows)],
            "cls": np.arange(rows),
        }
    )


def columns(table: pa.Table) -> list[Column]:
    return [column_of_type(field.name, field.type) for field in table.schema]


def write(tables: list[pa.Table], folder: Path, format: str, **options: int) -> list[Path]:
    return write_files(iter(tables), columns(tables[0]), folder, format, **options)


@pytest.mark.parametrize("format", ["parquet", "arrow", "jsonl", "csv"])
def test_what_is_written_is_read_back(format: str, tmp_path: Path) -> None:
    tables = [plain(), plain(50, first=100)]
    paths = write(tables, tmp_path / "out", format, file_bytes=2000)
    assert len(paths) > 1
    assert paths == sorted((tmp_path / "out").iterdir())
    more = {"newlines_in_values": True} if format == "csv" else {}
    assert read(open_source(tmp_path / "out", **more)).table.to_pylist() == [
        row for table in tables for row in table.to_pylist()
    ]


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_parquet_and_arrow_keep_every_type_and_meaning(format: str, tmp_path: Path) -> None:
    table = rich()
    meant = [*columns(table)[:2], Column("picture", "bytes", "binary", meaning="encoded-image")]
    described = table.select(["key", "pixels", "picture"]).cast(arrow_schema(meant))
    write_files(iter([described]), meant, tmp_path / "out", format)
    source = open_source(tmp_path / "out")
    assert read(source).table.equals(described)
    assert source.meanings == {"picture": "encoded-image"}


def test_json_has_lists_base64_and_iso_times(tmp_path: Path) -> None:
    table = rich().append_column("y", pa.array([float("nan")] * 10))
    (path,) = write([table], tmp_path, "jsonl")
    row = json.loads(path.read_text().splitlines()[1])
    assert row["pixels"] == [[4, 5], [6, 7]]
    assert row["when"] == "2024-01-02T00:00:00"
    assert row["y"] is None
    import base64

    assert base64.b64decode(row["picture"]) == jpeg(1)


def test_a_tar_file_is_samples_that_are_read_back(tmp_path: Path) -> None:
    table = rich()
    (path,) = write([table], tmp_path, "webdataset")
    got = read(open_source(path)).table
    assert got["key"].to_pylist()[1] == "a/1%2Eb"
    assert got.column_names == ["key", "pixels.npy", "picture.jpg", "when.json", "cls"]
    assert got["cls"].to_pylist() == list(range(10))
    assert got["picture.jpg"].to_pylist() == table["picture"].to_pylist()
    import io

    pixels = np.load(io.BytesIO(got["pixels.npy"][1].as_py()), allow_pickle=False)
    assert pixels.tolist() == [[4, 5], [6, 7]]


def test_a_format_says_all_columns_that_it_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        write([rich()], tmp_path / "out", "csv")
    assert caught.value.facts["columns"] == ['"pixels" (tensor)', '"picture" (bytes)']
    assert not (tmp_path / "out").exists()


def test_no_rows_and_no_such_format_are_errors(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there are no rows"):
        write([plain(5).slice(0, 0)], tmp_path / "out", "parquet")
    with pytest.raises(BadInput, match='Did you mean "parquet"'):
        write([plain()], tmp_path / "out", "parqet")


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    write([plain(5)], tmp_path, "csv")
    before = (tmp_path / "part-00000.csv").read_bytes()
    with pytest.raises(Conflict, match=r"part-00000\.csv is there already"):
        write([plain(7)], tmp_path, "csv")
    assert (tmp_path / "part-00000.csv").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("format", WRITERS)
def test_an_error_of_the_rows_leaves_only_whole_files(format: str, tmp_path: Path) -> None:
    def tables() -> Iterator[pa.Table]:
        yield plain()
        yield plain(first=100)
        raise BadInput("a shard is damaged", "Mend it.")

    with pytest.raises(BadInput, match="a shard is damaged"):
        write_files(tables(), columns(plain()), tmp_path, format, file_bytes=1000)
    assert all(not path.name.startswith(".") for path in tmp_path.iterdir())
    more = {"csv": {"newlines_in_values": True}, "webdataset": {"columns": ["id"]}}
    assert read(open_source(tmp_path, **more.get(format, {}))).table.num_rows in (100, 200)


@pytest.mark.root
@pytest.mark.parametrize("format", WRITERS)
def test_a_full_disk_leaves_no_half_file(format: str, small_disk: Path) -> None:
    noise = pa.table({"x": np.random.default_rng(0).random(200_000)})
    with pytest.raises(DiskFull):
        write([noise], small_disk / "out", format)
    assert list((small_disk / "out").iterdir()) == []


@pytest.mark.faults
@pytest.mark.parametrize("line", [20, 60, 120, 400])
def test_a_kill_leaves_nothing_that_looks_whole(
    line: int, tmp_path: Path, in_child: Callable[..., int]
) -> None:
    def work() -> None:
        write([plain(), plain(first=100)], tmp_path / "out", "jsonl", file_bytes=1000)

    in_child(work, die_at=line, part="formats/writers")
    if (tmp_path / "out").exists():
        for path in (tmp_path / "out").glob("part-*"):
            assert read(open_source(path)).table.num_rows == 100
