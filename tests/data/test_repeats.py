"""Keys that come twice, in units of ordered rows: what all of them together would tell."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.blobs import open_blobs
from penstock.data.clusters.repeats import SHOWN, all_repeated, repeated
from penstock.data.clusters.units import RowPlaces, Task, write_units
from penstock.data.preparation.splitting import rule_of
from penstock.data.preparation.tables import read_table


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.data())
def test_as_many_as_there_are_however_the_rows_are_cut(
    values: list[int], data: st.DataObject
) -> None:
    keys = sorted(values)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(keys)), max_size=6)) | {0, len(keys)})
    units, places = [], []
    for start, end in pairwise(cuts):
        part = keys[start:end]
        told = repeated(pa.array(part, pa.int64()))
        units.append({"low": part[0], "high": part[-1], "records": len(part), "repeated": told})
        places.append(RowPlaces("p", start))
    named, count = all_repeated(units, places)
    times = {key: number for key, number in Counter(keys).items() if number > 1}
    assert count == len(times)
    assert len(named) == min(SHOWN, len(times))
    for key, shown in named.items():
        rows = [f"p, row {at}" for at, each in enumerate(keys) if each == int(key)]
        assert len(shown) == min(len(rows), SHOWN + 1)
        assert set(shown[:SHOWN]) <= set(rows)
        assert shown[SHOWN:] == ["…"] * (len(rows) > SHOWN)


KEYS: dict[str, pa.Array] = {
    "large text": pa.array(["b", "a", "c", "a"], pa.large_string()),
    "views": pa.array(["b", "a", "c", "a"], pa.string_view()),
    "dictionary": pa.array(["b", "a", "c", "a"]).dictionary_encode(),
    "bytes": pa.array([b"b", b"a", b"c", b"a"]),
    "beyond int64": pa.array([2**63 + 1, 2**63, 2**64 - 1, 2**63], pa.uint64()),
}


@pytest.mark.parametrize("kind", KEYS)
def test_rows_in_any_order_come_in_that_of_their_keys(tmp_path: Path, kind: str) -> None:
    blobs = open_blobs(f"file://{tmp_path}")
    task = Task("key", rule_of({"all": 1}, None).spec(), {})
    table = pa.table({"key": KEYS[kind], "x": [0, 1, 2, 3]})
    (found,) = write_units(blobs, task, "p", [table.slice(0, 1), table.slice(1)])
    assert found["repeated"]["count"] == 1 and found["repeated"]["ends"] == [True, False]
    rows = read_table(blobs, found["blob"])
    assert rows["x"].to_pylist() == [1, 3, 0, 2]
    assert found["run"] is None and found["refs"] == [found["blob"]]


def test_bytes_are_named_in_hexadecimal() -> None:
    told = repeated(pa.array([b"\x01", b"\x01", b"\x02"]))
    assert told == {"count": 1, "shown": [["01", [0, 1]]], "ends": [True, False]}
    assert repeated(pa.array(["a"])) == {"count": 0, "shown": [], "ends": [False, False]}
