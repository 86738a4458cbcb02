"""What is in two splits: by key, by episode, by content; whatever the order and the memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.base.errors import DiskFull
from penstock.blobs import Blobs
from penstock.data.columns import column_of_field
from penstock.data.expectations import Expectation, Expectations, check, check_tables
from penstock.data.row_hashes import HASH, RECORD, Sorter, hash_keys, hash_rows, records, runs


def rules(*names: str, **values: Any) -> Expectations:
    return Expectations(tuple(Expectation("leakage", "", name, values, "refuse") for name in names))


def test_keys_and_episodes_in_two_splits_are_named() -> None:
    train = pa.table({"id": [1, 2, 3], "drive": ["a", "a", None], "x": [1, 2, 3]})
    test = pa.table({"id": [4, 2], "drive": ["b", None], "x": [4, 5]})
    tables = [("train", train), ("test", test)]
    (found,) = check_tables(tables, rules("key"), key="id")
    assert (found.count, found.severity) == (1, "refuse")
    assert str(found.rows[0]) == "test[1]"
    assert found.samples == ("as train[1]",)
    assert check_tables(tables, rules("episode", column="drive")) == []  # missing is no episode
    (found,) = check_tables([*tables, ("test", train)], rules("episode", column="drive"))
    assert found.what == 'values of "drive" in more than one split: 1'


def test_equal_rows_are_found_whatever_their_keys() -> None:
    train = pa.table({"id": [1, 2], "x": [0.5, None], "words": [[1, 2], []]})
    test = pa.table({"id": [3, 4, 5], "x": [0.5, None, 0.5], "words": [[1, 2], [], [1]]})
    (found,) = check_tables([("train", train), ("test", test)], rules("content"), key="id")
    assert found.count == 2
    assert check_tables([("train", train), ("test", test)], rules("content")) == []  # keys differ
    assert (
        check_tables([("train", train), ("train", train)], rules("content", "key"), key="id") == []
    )


def test_rows_that_are_nothing_but_a_key_have_no_content_to_leak() -> None:
    tables = [("train", pa.table({"id": [1, 2]})), ("test", pa.table({"id": [3]}))]
    assert check_tables(tables, rules("content", "key"), key="id") == []


def test_a_version_without_leaks_has_none_and_one_with_equal_pictures_does(
    make: Any, blobs: Blobs
) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (200, 8, 8), dtype=np.uint8)
    splits = {"train": 0.5, "test": 0.5}
    data = make(blobs, {"id": np.arange(200), "x": pictures}, splits=splits)
    assert check(blobs, data, rules("key", "content")) == []
    pictures[100:] = pictures[:100]
    data = make(blobs, {"id": np.arange(200), "x": pictures}, splits=splits)
    (found,) = check(blobs, data, rules("key", "content"))
    assert found.expectation.rule == "content"
    assert 30 < found.count < 70


def test_hashes_tell_rows_apart_and_nothing_else() -> None:
    table = pa.table(
        {
            "a": pa.array([1, 1, None, 1, 1, 1], pa.int32()),
            "b": ["x", "x", "x", None, "", "x"],
            "c": [0.0, -0.0, 0.0, 0.0, 0.0, None],
        }
    )
    columns = [column_of_field(each) for each in table.schema]
    found = hash_rows(table, columns)
    assert found[0] == found[1]
    assert len(set(found.tolist())) == 5
    turned = hash_rows(table.select(["c", "a", "b"]), columns[::-1])
    assert (turned == found).all()
    assert (hash_rows(table.slice(2), columns) == found[2:]).all()


def test_a_key_is_its_text() -> None:
    assert (hash_keys(pa.array([7, 12])) == hash_keys(pa.array(["7", "12"]))).all()
    assert (hash_keys(pa.array([b"\x0a"])) == hash_keys(pa.array(["0a"]))).all()


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 20), max_size=30), max_size=6), st.integers(0, 400))
def test_a_sorter_brings_equal_hashes_together_whatever_its_memory(
    groups: list[list[int]], budget: int
) -> None:
    with Sorter(budget=budget) as sorter:
        for number, values in enumerate(groups):
            keys = hash_keys(pa.array(values, pa.int64()))
            sorter.add(records(keys, number, 0))
        parts = list(sorter.sorted())
    wanted: dict[int, int] = {}
    for value in (value for values in groups for value in values):
        wanted[value] = wanted.get(value, 0) + 1
    sizes = [int(size) for part in parts for size in np.diff(runs(part))]
    assert sorted(sizes) == sorted(wanted.values())
    for part in parts:
        for start, stop in zip(runs(part)[:-1], runs(part)[1:], strict=True):
            places = [(int(each["group"]), int(each["row"])) for each in part[start:stop]]
            assert places == sorted(places)


def test_a_sorter_leaves_no_file(tmp_path: Path) -> None:
    with Sorter(RECORD, 100, tmp_path) as sorter:
        sorter.add(records(np.zeros(50, HASH), 0, 0))
        sorter.add(records(np.ones(1, HASH), 1, 0))
        assert sum(map(len, sorter.sorted())) == 51
        assert list(tmp_path.iterdir()) == []  # it has no name, so it goes with the process
    sorter.close()


@pytest.mark.root
def test_a_sorter_without_room_says_so(small_disk: Any) -> None:
    with (
        Sorter(RECORD, 1 << 20, small_disk) as sorter,
        pytest.raises(DiskFull, match="no room left for keeping the hashes of rows"),
    ):
        for number in range(100):
            sorter.add(records(np.zeros(100_000, HASH), 0, number))
