"""`Dataset`: rows, columns, parts and streams of a version, read when they are asked for."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.base.errors import BadInput, Damaged, MissingExtra, NotFound
from penstock.base.layout import Layout
from penstock.blobs import Blobs, open_blobs
from penstock.data.dataset import Dataset, open_dataset
from penstock.data.manifest import Manifest
from penstock.data.preparation import prepare
from penstock.data.references import Reference
from penstock.jobs.stores import Stores

Make = Callable[..., Manifest]
ROWS = 23


def mixed(rows: int = ROWS) -> Iterator[dict[str, Any]]:
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    for i in range(rows):
        yield {
            "id": i,
            "image": np.full((8, 9), i, np.float32),
            "words": np.arange(i % 4, dtype=np.int32),
            "text": None if i == 3 else f"text {i}",
            "odd": None if i == 5 else i % 2,
            "weight": None if i == 7 else i / 2,
            "raw": bytes([i]) * i,
            "at": start + datetime.timedelta(hours=i),
            "far": Reference("elsewhere.bin", i, 10),
            "even": i % 2 == 0,
        }


@pytest.fixture
def data(blobs: Blobs, layout: Layout, make: Make) -> Dataset:
    """Mixed columns in shards of 5 rows."""
    manifest = make(blobs, mixed(), shard_rows=5)
    return Dataset(blobs, manifest, "mixed@1:all", "all", layout=layout)


class Counting:
    """A blob store that counts what is read of it."""

    def __init__(self, inner: Blobs) -> None:
        self.inner, self.read_digests = inner, list[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def get(self, digest: str) -> bytes:
        self.read_digests.append(digest)
        return self.inner.get(digest)


# rows


def test_rows_have_the_values_that_were_given(data: Dataset) -> None:
    rows = list(data)
    assert len(rows) == len(data) == ROWS
    for asked, found in zip(mixed(), rows, strict=True):
        assert list(found) == list(asked)
        for name, value in asked.items():
            np.testing.assert_equal(found[name], value)
    assert rows[4]["words"].dtype == np.int32
    assert isinstance(rows[0]["id"], int)


@pytest.mark.parametrize("where", [slice(None, 5), slice(2, 19, 6), slice(None, None, -1)])
def test_slices_are_those_of_a_list(data: Dataset, where: slice) -> None:
    assert [row["id"] for row in data[where]] == list(range(ROWS))[where]
    assert data[5:5] == []


def test_a_row_is_found_from_both_ends(data: Dataset) -> None:
    assert [data[i]["id"] for i in (0, -1, np.int64(7))] == [0, ROWS - 1, 7]
    for beyond in (ROWS, -ROWS - 1):
        with pytest.raises(IndexError):
            data[beyond]


def test_a_row_may_be_written_to_and_changes_nothing(data: Dataset) -> None:
    row = data[1]
    row["image"][:] = 99
    row["words"][:] = 99
    assert (data[1]["image"] == 1).all()
    assert data[1]["words"].tolist() == [0]


def test_a_column_is_an_array_where_it_can_be(data: Dataset) -> None:
    assert data["image"].shape == (ROWS, 8, 9)
    assert data["id"].dtype == np.int64
    assert np.isnan(data["weight"][7])
    assert data["odd"][4:7] == [0, None, 0], "a whole number has no NaN"
    assert data["even"].dtype == bool
    assert data["text"][3] is None
    assert [len(each) for each in data["words"]] == [i % 4 for i in range(ROWS)]
    assert data["far"][2] == Reference("elsewhere.bin", 2, 10)


def test_an_unknown_column_offers_the_nearest(data: Dataset) -> None:
    for ask in (lambda: data["imgae"], lambda: data.select(["id", "imgae"])):
        with pytest.raises(NotFound) as caught:
            ask()
        assert '"image"' in caught.value.fix
    with pytest.raises(BadInput):
        data.select("image")  # type: ignore[arg-type]


# parts


@settings(max_examples=60, deadline=None)
@given(
    a=st.integers(-30, 30), b=st.integers(-30, 30), c=st.integers(-30, 30), d=st.integers(-30, 30)
)
def test_a_part_of_a_part_is_what_slices_say(
    whole: Dataset, a: int, b: int, c: int, d: int
) -> None:
    part = whole.select(["id"], a, b).select(start=c, stop=d)
    expected = list(range(ROWS))[a:b][c:d]
    assert len(part) == len(expected)
    assert [row["id"] for row in part] == expected
    assert part.to_arrow()["id"].to_pylist() == expected
    assert [
        n for batch in part.to_batches(batch_rows=2) for n in batch["id"].to_pylist()
    ] == expected


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, make: Make) -> Dataset:
    store = open_blobs(f"file://{tmp_path_factory.mktemp('whole')}")
    return Dataset(store, make(store, mixed(), shard_rows=5), "mixed@1:all", "all")


def test_only_the_shards_that_hold_the_rows_are_read(blobs: Blobs, make: Make) -> None:
    counting = Counting(blobs)
    manifest = make(blobs, mixed(), shard_rows=5)
    data = Dataset(counting, manifest, "mixed@1:all", "all")  # type: ignore[arg-type]
    digests = manifest.shards.digests()
    assert (len(data), data.splits["all"].rows, counting.read_digests) == (ROWS, ROWS, [])
    assert [data[i]["id"] for i in (7, 8, 9)] == [7, 8, 9]
    assert counting.read_digests == digests[1:2], "the shard that was read last is remembered"
    counting.read_digests.clear()
    assert [row["id"] for row in data[1::16]] == [1, 17]
    assert [row["id"] for row in data[::-20]] == [22, 2]
    assert counting.read_digests == [digests[0], digests[3], digests[0], digests[4]]
    counting.read_digests.clear()
    part = data.select(["id"], 4, 11)
    assert sum(batch.num_rows for batch in part.to_batches()) == 7
    assert counting.read_digests == digests[:3]


def test_only_the_columns_that_are_asked_for_are_decoded(data: Dataset) -> None:
    part = data.select(["weight", "id"])
    assert list(part.schema) == ["id", "weight"], "in the schema's order"
    assert part[0] == {"id": 0, "weight": 0.0}
    assert not part.whole
    assert data.whole
    assert next(iter(data.to_batches(["id"], 3, 8))).to_pydict() == {"id": [3, 4]}


def test_batches_are_as_large_as_they_may_be(data: Dataset) -> None:
    assert [b.num_rows for b in data.to_batches()] == [5, 5, 5, 5, 3]
    assert [b.num_rows for b in data.to_batches(batch_rows=3)] == [3, 2, 3, 2, 3, 2, 3, 2, 3]
    assert list(data.to_batches(start=9, stop=9)) == []
    with pytest.raises(BadInput):
        next(data.to_batches(batch_rows=0))


def test_threads_share_a_dataset(data: Dataset) -> None:
    wrong: list[int] = []

    def read(first: int) -> None:
        wrong.extend(i for i in [*range(first, ROWS), *range(first)] if data[i]["id"] != i)

    threads = [threading.Thread(target=read, args=(n * 5,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# bridges


def test_it_is_a_stream_of_arrow_for_whoever_takes_one(data: Dataset) -> None:
    table = pa.table(data)
    assert table.equals(data.to_arrow())
    assert table.schema.equals(data.arrow_schema)
    assert table["image"].chunk(0).to_numpy_ndarray().shape == (5, 8, 9)
    assert pa.RecordBatchReader.from_stream(data).read_all().num_rows == ROWS


def test_polars_has_the_same_values(data: Dataset) -> None:
    polars = pytest.importorskip("polars")
    frame = data.to_polars()
    assert frame["image"].dtype == polars.Array(polars.Float32, (8, 9))
    np.testing.assert_array_equal(frame["image"].to_numpy(), data["image"])
    assert frame["odd"].to_list() == data["odd"]
    assert frame["words"].to_list() == [list(range(i % 4)) for i in range(ROWS)]
    assert frame["far"][2] == {"uri": "elsewhere.bin", "start": 2, "length": 10}
    assert polars.DataFrame(data.select(["id", "text"])).rows()[3] == (3, None)
    assert data.select(start=3, stop=3).to_polars().shape == (0, 10)


def test_pandas_has_the_same_values(data: Dataset) -> None:
    pandas = pytest.importorskip("pandas")
    frame = data.to_pandas()
    assert list(frame.columns) == list(data.schema)
    assert frame["image"][4].shape == (8, 9)
    assert frame["id"].tolist() == list(range(ROWS))
    assert frame["odd"].isna().sum() == 1
    assert len(pandas.DataFrame.from_arrow(data)) == ROWS
    assert len(data.select(start=3, stop=3).to_pandas()) == 0


def test_duckdb_reads_it_as_often_as_it_is_asked(data: Dataset) -> None:
    duckdb = pytest.importorskip("duckdb")
    relation = data.to_duckdb()
    for _ in range(2):
        assert relation.aggregate("count(*), sum(id)").fetchall() == [(ROWS, 253)]
    with duckdb.connect() as own:
        assert data.to_duckdb(own).filter("odd IS NULL").project("id").fetchall() == [(5,)]
    assert duckdb.sql("SELECT max(id) FROM data").fetchall() == [(ROWS - 1,)]


def test_numpy_gives_every_column(data: Dataset) -> None:
    arrays = data.to_numpy()
    assert list(arrays) == list(data.schema)
    arrays["image"][0] = 5
    assert data.select(start=4, stop=4).to_numpy()["image"].shape == (0, 8, 9)
    assert (data["image"][0] == 0).all()


def test_a_missing_library_names_its_extra(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.data import frames

    def gone(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(frames, "import_module", gone)
    for ask in (data.to_polars, data.to_pandas, data.to_duckdb):
        with pytest.raises(MissingExtra) as caught:
            ask()
        assert "penstock[frames]" in caught.value.fix


# opening, damage


def test_opening_resolves_the_reference(stores: Stores) -> None:
    prepare(stores, "mixed", mixed, key="id", splits={"train": 0.5, "test": 0.5})
    data = open_dataset(stores, "mixed:test")
    assert (data.reference, data.split) == ("mixed@1:test", "test")
    assert set(data.splits) == {"train", "test"}
    assert data.lineage.function.endswith("mixed")
    assert data.statistics["id" if "id" in data.statistics else "odd"].rows == ROWS
    with pytest.raises(BadInput, match="several splits: train, test"):
        open_dataset(stores, "mixed")
    with pytest.raises(NotFound):
        open_dataset(stores, "mixed:tset")


def test_a_damaged_shard_is_named_and_gives_no_row(
    data: Dataset, damage: Callable[[str], None]
) -> None:
    damage(data.manifest.shards[2].digest)
    assert data[3]["id"] == 3
    got = []
    with pytest.raises(Damaged, match='shard 2 of split "all"'):
        for row in data:
            got.append(row["id"])
    assert got == list(range(10))
    for ask in (lambda: data[12], data.to_arrow, lambda: data["id"], data.to_polars):
        with pytest.raises(Damaged):
            ask()


# how it shows


def test_what_it_is_can_be_read_at_a_glance(data: Dataset) -> None:
    text = repr(data)
    assert text.startswith("<Dataset mixed@1:all: 23 rows\n  id ")
    assert "float32[8, 9]" in text
    assert "list of int32" in text
    assert (
        repr(data.select(["id"], 3, 9))
        == "<Dataset mixed@1:all: 6 rows (rows 3 to 9)\n  id  int64 (key)>"
    )
    assert repr(data[1:3]).count("\n") == 1
    assert "image: float32[8, 9] 1 … 1" in repr(data[1:3])


@pytest.mark.torch
def test_torch_reads_the_same_rows(data: Dataset) -> None:
    torch = pytest.importorskip("torch")
    part = data.select(["id", "image", "text"], 4, 22)
    rows = part.to_torch()
    assert len(rows) == 18
    assert int(rows[1]["id"]) == 5
    assert (rows[1]["image"] == 5).all()
    batches = list(torch.utils.data.DataLoader(rows, batch_size=4))
    assert [int(n) for batch in batches for n in batch["id"]] == list(range(4, 22))
    shuffled = list(part.to_torch(batch_size=6, seed=1))
    assert sorted(int(n) for batch in shuffled for n in batch["id"]) == list(range(4, 22))
    assert [len(batch["text"]) for batch in shuffled] == [6, 6, 6]
    with pytest.raises(BadInput, match="missing values"):
        data.to_torch()
