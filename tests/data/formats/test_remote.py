"""Sources in an object store: listed by prefix and glob, read by ranges, steady by ETag."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.base.errors import BadInput
from penstock.blobs.remote.address import parse
from penstock.blobs.remote.client import Client
from penstock.data.formats import open_source, remote

from .examples import EXAMPLES, Example, read

pytestmark = pytest.mark.s3
Put = Callable[[str, bytes], None]


@pytest.fixture
def root(moto: str, bucket: str) -> Callable[[str], str]:
    """`root("raw/*.csv")`: its URL in a new bucket."""
    return lambda key: f"s3://{bucket}/{key}?endpoint={moto}&region=us-east-1"


@pytest.fixture
def put(root: Callable[[str], str]) -> Put:
    client = Client(parse(root("")))
    return lambda key, data: client.overwrite(key, memoryview(data))


def parquet(rows: int = 200_000) -> bytes:
    stream = io.BytesIO()
    values = np.random.default_rng(0).random(rows)
    table = pa.table({"id": np.arange(rows), "x": values, "y": values})
    pq.write_table(table, stream, row_group_size=rows // 10, compression="none")
    return stream.getvalue()


def bytes_read() -> int:
    return sum(client.counters.bytes_read for client in remote._clients.values())


def test_every_kind_of_name_is_listed(root: Callable[[str], str], put: Put) -> None:
    for key in ("raw/a.csv", "raw/deep/b.csv", "raw/c.jsonl", "rawer/d.csv", "raw/.hidden.csv"):
        put(key, b"x\n1\n" if key.endswith("csv") else b'{"x": 1}\n')

    def names(given: Any) -> list[str]:
        return [each.name for each in open_source(given).inputs()]

    assert names(root("raw/a.csv")) == ["a.csv"]
    assert names(root("raw/*.csv")) == ["a.csv"]
    assert names(root("raw/**/*.csv")) == ["a.csv", "deep/b.csv"]
    assert names(root("raw/?.csv")) == ["a.csv"]
    assert names(root("raw/deep")) == ["b.csv"]
    assert names([root("raw/deep"), root("raw/a.csv")]) == ["a.csv", "deep/b.csv"]
    with pytest.raises(BadInput, match=r"2 \.csv.*1 \.jsonl"):
        open_source(root("raw"))
    with pytest.raises(BadInput, match="there is nothing at"):
        open_source(root("none/*.csv"))


def zst(folder: Path) -> Example:
    example = EXAMPLES["csv"](folder)
    path = example.path.rename(folder / "rows.csv.zst")
    path.write_bytes(pa.Codec("zstd").compress(path.read_bytes(), asbytes=True))
    return Example(path, [path])


@pytest.mark.parametrize("name", [*sorted(EXAMPLES), "csv.zst"])
def test_every_format_is_read_as_from_disk(
    name: str, root: Callable[[str], str], put: Put, tmp_path: Path
) -> None:
    near = {**EXAMPLES, "csv.zst": zst}[name](tmp_path)
    for file in near.files:
        put(file.relative_to(tmp_path).as_posix(), file.read_bytes())
    whole = name == "webdataset"  # cutting a tar takes all of its headers: not over a network
    options = {**near.options, "piece_bytes": 1 << 30 if whole else 4 * near.piece}
    here = open_source(near.path, **options)
    far = open_source(root(near.path.relative_to(tmp_path).as_posix()), **options)
    one, other = here.inputs(), far.inputs()
    assert [each.name for each in other] == [each.name for each in one]
    assert [far.digest(each) for each in other] == [here.digest(each) for each in one]
    wanted, found = read(here), read(far)
    assert found.table.num_rows == near.rows and found.table.equals(wanted.table)
    assert (found.places, found.bad) == (wanted.places, [])


def test_a_bad_record_in_a_store_is_told_with_its_place(
    root: Callable[[str], str], put: Put
) -> None:
    put("a.csv", b"x,y\n1,2\nbad\n3,4\n")
    got = read(open_source(root("a.csv"), piece_bytes=6))
    assert got.table["x"].to_pylist() == [1, 3]
    assert [each.place for each in got.bad] == ["a.csv:3"]


def test_a_row_group_is_read_without_the_rest(root: Callable[[str], str], put: Put) -> None:
    data = parquet()
    put("a.parquet", data)
    source = open_source(root("a.parquet"), piece_bytes=len(data) // 10, columns=["x"])
    piece = source.inputs()[4]
    before = bytes_read()
    got = read(source, [piece])
    assert got.table.num_rows == 20_000
    assert got.places[-1] == "a.parquet row 99999 (row group 4)"
    assert bytes_read() - before < len(data) / 4  # a third of a group, and the footer


def test_pieces_give_the_rows_and_digests_of_a_local_file(
    root: Callable[[str], str], put: Put, tmp_path: Any
) -> None:
    data = parquet(20_000)
    put("a.parquet", data)
    (tmp_path / "a.parquet").write_bytes(data)
    far = open_source(root("a.parquet"), piece_bytes=len(data) // 5)
    near = open_source(tmp_path / "a.parquet", piece_bytes=len(data) // 5)
    assert [each.name for each in far.inputs()] == [each.name for each in near.inputs()]
    assert [far.digest(i) for i in far.inputs()] == [near.digest(i) for i in near.inputs()]
    assert read(far).table.equals(read(near).table)


@pytest.mark.parametrize("name", ["a.csv", "a.txt"])
def test_an_object_that_changed_is_an_error(
    name: str, root: Callable[[str], str], put: Put
) -> None:
    put(name, b"x\n1\n")
    source = open_source(root(name))
    inputs = source.inputs()
    put(name, b"x\n2\n")
    with pytest.raises(BadInput, match="changed while it was read"):
        read(source, inputs)


def test_a_secret_in_a_url_is_refused(root: Callable[[str], str]) -> None:
    with pytest.raises(BadInput, match="Secrets belong into the environment"):
        open_source(root("a.csv") + "&secret_access_key=x")
