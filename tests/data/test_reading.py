"""References to versions, rows of a split, and statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.errors import BadInput, Damaged, NotFound
from penstock.blobs import Blobs, open_blobs
from penstock.data import (
    Manifest,
    open_dataset,
    prepare,
    read_manifest,
    read_rows,
    read_split,
    resolve,
    unit_ranges,
)
from penstock.jobs.stores import Stores


def letters() -> list[dict[str, str]]:
    return [{"letter": letter} for letter in "abcdefghijklmnopqrstuvwxyz"]


def test_references_resolve_to_a_version_and_a_split(stores: Stores) -> None:
    prepare(stores, "abc", letters)
    prepare(stores, "one", letters, splits={"whole": 1})
    with stores.meta.write() as meta:
        meta.move_alias("dataset", "abc", "best", 1, None)
    with stores.meta.read() as meta:
        for text, split in {
            "abc": None, "abc:train": "train", "abc@1:test": "test", "abc@best:validation":
            "validation", "one": "whole", "one@1:whole": "whole",
        }.items():  # fmt: skip
            version, found = resolve(meta, text)
            assert (version.version, found) == (1, split)
        for text, near in {
            "abc:trian": "train", "abd:train": "abc", "abc@bets": "best", "one:train": "whole",
        }.items():  # fmt: skip
            with pytest.raises(NotFound) as error:
                resolve(meta, text)
            assert near in error.value.fix
        with pytest.raises(BadInput):
            resolve(meta, "abc::train")


@pytest.fixture(scope="module")
def kept() -> Blobs:
    return open_blobs("memory://")


@pytest.fixture(scope="module")
def data(make: Any, kept: Blobs) -> Manifest:
    return make(kept, rows=100, shard_rows=17)


@given(start=st.integers(0, 110), stop=st.integers(0, 110))
def test_some_rows_are_a_slice_of_all(kept: Blobs, data: Manifest, start: int, stop: int) -> None:
    found = read_rows(kept, data, "all", ["id", "image"], start, stop)
    assert found["id"].to_pylist() == list(range(100))[start:stop]
    assert found.column_names == ["id", "image"]


def test_only_the_shards_that_hold_the_rows_are_read(make: Any, kept: Blobs) -> None:
    data = make(kept, rows=90, shard_rows=30, key=lambda row: f"only/{row['id']}")
    for number in (0, 2):
        kept.condemn(data.shards[number].digest)
        kept.purge(data.shards[number].digest)
    assert read_rows(kept, data, "all", start=30, stop=60).num_rows == 30
    with pytest.raises(Damaged, match="shard 2"):
        read_rows(kept, data, "all", start=30, stop=61)


def test_a_split_is_read_whole_and_in_order(kept: Blobs, data: Manifest) -> None:
    table = read_split(kept, data, "all")
    assert table["id"].to_pylist() == list(range(100))
    assert table.column_names == list(data.schema)
    with pytest.raises(NotFound):
        read_split(kept, data, "al")
    with pytest.raises(NotFound, match='no column "ide"'):
        read_split(kept, data, "all", ["ide"])


@given(rows_per_unit=st.integers(1, 150))
def test_units_cover_a_split_once(data: Manifest, rows_per_unit: int) -> None:
    units = unit_ranges(data, "all", rows_per_unit)
    assert [row for start, stop in units for row in range(start, stop)] == list(range(100))
    assert all(0 < stop - start <= rows_per_unit for start, stop in units)


def test_a_unit_of_no_rows_is_refused(data: Manifest) -> None:
    with pytest.raises(BadInput):
        unit_ranges(data, "all", 0)


def test_statistics_are_those_of_the_rows(make: Any, kept: Blobs) -> None:
    rows = [
        {"id": i, "n": i % 3, "x": [0.5, None, float("nan"), float("inf"), -2.0][i % 5],
         "t": ["a", "bcd", None][i % 3], "f": i % 4 == 0, "v": np.array([i, -i]), "many": i * 10}
        for i in range(600)
    ]  # fmt: skip
    found = make(kept, rows, shard_rows=7).statistics
    assert "id" not in found  # the key: every value is another
    assert found["n"].counts == {"0": 200, "1": 200, "2": 200}
    assert (found["n"].min, found["n"].max, found["n"].mean) == (0, 2, 1.0)
    assert (found["x"].rows, found["x"].nulls, found["x"].not_finite) == (600, 120, 240)
    assert (found["x"].min, found["x"].max, found["x"].mean) == (-2.0, 0.5, -0.75)
    assert (found["t"].nulls, found["t"].min, found["t"].max, found["t"].mean) == (200, 1, 3, 2.0)
    assert found["t"].counts == {"a": 200, "bcd": 200}
    assert found["f"].counts == {"false": 450, "true": 150}
    assert (found["v"].min, found["v"].max, found["v"].mean, found["v"].counts) == (
        -599,
        599,
        0,
        None,
    )
    assert found["many"].counts is None  # more than 256 different ones


def test_statistics_of_what_cannot_be_measured_are_missing(make: Any, kept: Blobs) -> None:
    rows = [{"id": i, "x": float("nan") if i else None, "big": 2**63 + i} for i in range(3)]
    found = make(kept, rows).statistics
    assert (found["x"].min, found["x"].mean, found["x"].not_finite) == (None, None, 2)
    assert found["big"].max == 2**63 + 2


def test_errors_name_the_version_as_people_do(stores: Stores) -> None:
    def rows() -> Iterator[dict[str, int]]:
        yield from ({"id": i, "x": i} for i in range(10))

    prepare(stores, "things", rows, key="id", splits={"all": 1.0})
    opened = open_dataset(stores, "things@1:all")
    with pytest.raises(NotFound, match='dataset things@1 has no column "y"'):
        opened.select(["y"])
    with pytest.raises(NotFound, match='dataset things@1 has no split "al"'):
        opened.manifest.split("al")
    digest = opened.manifest.shards[0].digest
    unnamed = read_manifest(stores.blobs, opened.manifest.digest)
    with pytest.raises(NotFound, match=f"dataset {unnamed.digest[7:15]} has no column"):
        read_rows(stores.blobs, unnamed, "all", ["y"])
    stores.blobs.condemn(digest)
    stores.blobs.purge(digest)
    with pytest.raises(Damaged, match='shard 0 of split "all" of dataset things@1 is gone'):
        opened.to_arrow()
