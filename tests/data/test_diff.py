"""What differs between two versions, row by row, and how far their columns have moved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.base.errors import BadInput
from penstock.blobs import Blobs, open_blobs
from penstock.data.diff import SHOWN, ColumnChange, diff
from penstock.data.types import Category

Rows = dict[str, int]


def made(make: Any, blobs: Blobs, rows: Rows, **options: Any) -> Any:
    given = {"id": list(rows), "x": list(rows.values())}
    return make(blobs, given, **{"splits": {"all": 1.0}} | options)


versions = st.dictionaries(st.text("abcde", min_size=1, max_size=3), st.integers(0, 3), min_size=1)


@settings(deadline=None)
@given(versions, versions, st.integers(1, 5), st.integers(1, 5))
def test_rows_are_matched_by_key_however_they_are_sharded(
    make: Any, old: Rows, new: Rows, one: int, other: int
) -> None:
    blobs = open_blobs("memory://")
    found = diff(
        blobs, made(make, blobs, old, shard_rows=one), made(make, blobs, new, shard_rows=other)
    )
    both = old.keys() & new.keys()
    assert found.added == len(new.keys() - old.keys())
    assert found.removed == len(old.keys() - new.keys())
    assert found.changed == sum(old[key] != new[key] for key in both)
    assert found.same == sum(old[key] == new[key] for key in both)
    assert found.moved == 0
    assert set(found.keys["added"]) <= new.keys() - old.keys()
    assert set(found.keys["changed"]) <= {key for key in both if old[key] != new[key]}
    assert len(found.keys["removed"]) == min(SHOWN, found.removed)
    assert found.equal == (old == new)


def test_shards_that_both_have_are_not_read(make: Any, blobs: Blobs) -> None:
    rows = {f"k{i:04}": i for i in range(1000)}
    old = made(make, blobs, rows, shard_rows=100)
    new = made(make, blobs, rows | {"k0205": -1} | {f"n{i}": i for i in range(50)}, shard_rows=100)
    found = diff(blobs, old, new)
    assert (found.added, found.removed, found.changed, found.same) == (50, 0, 1, 999)
    assert found.keys["changed"] == ["k0205"]
    assert found.read == (3, 21)
    assert found.splits == {"all": (1000, 1050)}
    assert diff(blobs, old, old).read == (0, 20)
    assert diff(blobs, old, old).equal


def test_rows_that_changed_only_their_split_are_moved(make: Any, blobs: Blobs) -> None:
    rows = {str(i): i for i in range(100)}
    old = made(make, blobs, rows, splits={"train": 0.5, "test": 0.5})
    new = made(make, blobs, rows, splits={"train": 0.7, "test": 0.3})
    found = diff(blobs, old, new)
    assert found.moved == new.splits["train"].rows - old.splits["train"].rows > 0
    assert found.same == 100 - found.moved
    assert not found.equal


def test_a_key_that_became_text_is_the_same_key(make: Any, blobs: Blobs) -> None:
    old = make(blobs, {"id": [1, 2, 3], "x": [1, 2, 3]})
    new = make(blobs, {"id": ["1", "2", "4"], "x": [1, 0, 3]})
    found = diff(blobs, old, new)
    assert (found.added, found.removed, found.changed, found.same) == (1, 1, 1, 1)
    assert found.columns == [ColumnChange("id", "changed", "int64 key", "text key")]


def test_columns_that_differ_are_listed_and_rows_compared_in_the_others(
    make: Any, blobs: Blobs
) -> None:
    old = make(blobs, {"id": [1, 2], "x": [1, 2], "y": [1.0, 2.0], "gone": [0, 0]})
    new = make(
        blobs,
        {"id": [1, 2], "x": [1, 2], "y": np.ones((2, 2)), "more": ["a", "b"]},
        types={"more": Category(("a", "b"))},
    )
    found = diff(blobs, old, new)
    assert (found.changed, found.same) == (0, 2)
    assert found.columns == [
        ColumnChange("y", "changed", "float64", "float64[2]"),
        ColumnChange("more", "added", new="text category(names=['a', 'b'])"),
        ColumnChange("gone", "removed", "int64"),
    ]


def test_rows_of_versions_that_share_only_the_key_are_equal_and_columns_are_listed(
    make: Any, blobs: Blobs
) -> None:
    old = make(blobs, {"id": [1, 2, 3], "x": [1, 2, 3]})
    new = make(blobs, {"id": [2, 3, 4], "y": [2, 3, 4]})
    found = diff(blobs, old, new)
    assert (found.added, found.removed, found.changed, found.same) == (1, 1, 0, 2)
    assert [(each.name, each.change) for each in found.columns] == [
        ("y", "added"),
        ("x", "removed"),
    ]
    assert not found.equal
    keys = make(blobs, {"id": [1, 2]})
    assert diff(blobs, keys, old).added == 1
    assert diff(blobs, keys, keys).equal


def test_every_kind_of_value_is_compared(make: Any, blobs: Blobs) -> None:
    def version(**changes: Any) -> Any:
        row = {"id": 1, "n": 1.0, "t": "a", "b": b"a", "m": None, "i": np.ones((2, 2))}
        row |= {"l": [1, 2]}
        other = {"id": 2, "n": 1.0, "t": "a", "b": b"a", "m": 1, "i": np.ones((2, 2)), "l": [1]}
        return make(blobs, [row | changes, other])

    first = version()
    others = {"n": 2.0, "t": "b", "b": b"b", "m": 1, "i": np.zeros((2, 2)), "l": [1, 3]}
    for name, value in others.items():
        found = diff(blobs, first, version(**{name: value}))
        assert (found.changed, found.same, found.keys["changed"]) == (1, 1, ["1"]), name


def test_a_key_that_names_several_rows_is_refused(make: Any, blobs: Blobs) -> None:
    data = make(blobs, {"id": [1, 2], "x": [1, 1]})
    other = make(blobs, {"id": [1, 2], "x": [1, 2]})
    with pytest.raises(BadInput, match="several rows of the old version"):
        diff(blobs, replace(data, key="x"), replace(other, key="x"))


def test_drift_is_told_for_numbers_categories_and_lengths(make: Any, blobs: Blobs) -> None:
    def version(shift: float, label: int, word: str) -> Any:
        chance = np.random.default_rng(int(shift * 10))
        return make(
            blobs,
            {
                "id": np.arange(2000),
                "x": chance.normal(size=2000) + shift,
                "still": chance.normal(size=2000),
                "label": np.where(np.arange(2000) % 2, label, 0),
                "word": [word * (1 + i % 3) for i in range(2000)],
            },
        )

    found = {
        each.column: each for each in diff(blobs, version(0, 1, "a"), version(1, 2, "abc")).drift
    }
    assert {name for name, each in found.items() if each.far} == {"x", "label", "word"}
    assert found["x"].psi == pytest.approx(1.0, abs=0.3)  # (difference of means / spread) ** 2
    assert found["x"].ks == pytest.approx(0.383, abs=0.05)  # of normal distributions one apart
    assert found["still"].psi is not None and found["still"].psi < 0.05
    before, now = found["x"].facts["mean"]
    assert now - before == pytest.approx(1, abs=0.1)
    assert found["word"].facts["longest"] == (3, 9)
    assert found["label"].ks is None
