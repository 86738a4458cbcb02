"""Keys that come twice, in units of ordered rows: what all of them together would tell."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.clusters.repeats import SHOWN, all_repeated, repeated
from penstock.data.clusters.units import RowPlaces


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


def test_bytes_are_named_in_hexadecimal() -> None:
    told = repeated(pa.array([b"\x01", b"\x01", b"\x02"]))
    assert told == {"count": 1, "shown": [["01", [0, 1]]], "ends": [True, False]}
    assert repeated(pa.array(["a"])) == {"count": 0, "shown": [], "ends": [False, False]}
