"""Times are whole numbers of their column's unit, and ISO text for people."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.base.errors import BadInput
from penstock.blobs import Blobs, open_blobs
from penstock.cli.data.tables import bars
from penstock.data import times
from penstock.data.columns import Column, column_of_type
from penstock.data.diff import drift
from penstock.data.expectations import Expectations, check, check_manifest, infer
from penstock.data.overview import summaries
from penstock.data.sketches import BUCKETS, Even
from penstock.data.statistics import Gatherer, read_sketches, sketch_table

DAY = dt.timedelta(days=1)
FIRST = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

KINDS = [
    *(pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC")),
    pa.timestamp("us", "Asia/Tokyo"), pa.date32(), pa.date64(), pa.time32("ms"), pa.time64("ns"),
    *(pa.duration(unit) for unit in ("s", "ms", "us", "ns")),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
@settings(max_examples=50, deadline=None)
@given(value=st.integers(-(2**31), 2**31 - 1))
def test_every_time_comes_back_from_its_text(kind: Any, value: int) -> None:
    column = column_of_type("at", kind)
    value = abs(value) % 86_400_000 if pa.types.is_time(kind) else value
    value = value % 2_000_000 if kind == pa.date32() else value
    text = times.iso(value, column)
    assert times.number(text, column) == value
    assert times.is_iso(text)


@pytest.mark.parametrize(
    "text, dtype, number",
    [
        ("2026-01-31", "timestamp[s]", 1_769_817_600),
        ("1970-01-01T02:00:00+02:00", "timestamp[s, tz=UTC]", 0),
        ("1970-01-01T00:00:01", "timestamp[ms, tz=Asia/Tokyo]", 1000),  # no zone: UTC
        ("12:00", "time32[s]", 43_200),
        ("-P1DT0.5S", "duration[ms]", -86_400_500),
    ],
)
def test_people_write_times_in_several_ways(text: str, dtype: str, number: int) -> None:
    assert times.number(text, Column("at", "time", dtype)) == number


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(-(2**62), 2**62), max_size=40), min_size=1, max_size=4))
def test_the_even_histogram_does_not_depend_on_how_values_came(parts: list[list[int]]) -> None:
    whole, merged = Even(), Even()
    whole.add(np.array([each for part in parts for each in part], np.int64))
    for part in reversed(parts):
        other = Even()
        other.add(np.array(part, np.int64))
        merged.merge(other)
    assert (whole.shift, [*whole.keys], [*whole.counts]) == (
        merged.shift, [*merged.keys], [*merged.counts])  # fmt: skip


def test_a_full_even_histogram_does_not_depend_on_how_values_came() -> None:
    chance = np.random.default_rng(0)
    numbers = np.concatenate([chance.integers(0, 10**15, 4000), chance.integers(0, 10**6, 4000)])
    whole = Even()
    whole.add(numbers)
    chance.shuffle(numbers)
    merged = Even()
    for part in np.split(numbers, 8):
        merged.add(part)
    assert len(whole.keys) <= BUCKETS and whole.counts.sum() == 8000
    assert whole.shift == merged.shift
    assert [*whole.keys, *whole.counts] == [*merged.keys, *merged.counts]


def test_times_far_from_1970_and_near_each_other_keep_their_distribution() -> None:
    seconds = 1_767_225_600 * 10**9 + np.arange(3600) * 10**9
    found = Even()
    found.add(seconds)
    assert len(found.keys) <= BUCKETS
    (middle,) = found.quantiles([0.5])
    assert abs(middle - seconds[1800]) < 8e9


def test_statistics_of_times_are_whole_numbers_and_travel() -> None:
    column = column_of_type("at", pa.timestamp("ms", "UTC"))
    units = []
    for start in (0, 50):
        units.append(Gatherer(column))
        days = [FIRST + (start + i) * DAY for i in range(50)]
        units[-1].add(pa.chunked_array([pa.array([*days, None], pa.timestamp("ms", "UTC"))]))
    one, other = (read_sketches(sketch_table([each]), [column])["at"] for each in units)
    one.merge(other)
    result = one.result()
    first = int(FIRST.timestamp() * 1000)
    assert (result.min, result.max, result.nulls) == (first, first + 99 * 86_400_000, 2)
    assert result.distinct == 100
    assert result.mean == pytest.approx(first + 49.5 * 86_400_000)
    assert result.quantiles and result.quantiles[3] == pytest.approx(result.mean, abs=86_400_000)


def test_what_an_older_version_gathered_of_times_makes_the_whole_unknown() -> None:
    column = column_of_type("at", pa.date32())
    old = Gatherer(column)
    old.add(pa.chunked_array([pa.array([1, 2], pa.date32())]))
    row = old.row() | {"elements": 0, "min": None, "max": None, "sampled": 0, "shift": 45,
                       "sum": 0.0, "buckets": [], "bucket_counts": []}  # fmt: skip
    new = Gatherer(column)
    new.add(pa.chunked_array([pa.array([3, 4], pa.date32())]))
    for one, other in ((Gatherer.of(column, row), new), (new, Gatherer.of(column, row))):
        one.merge(other)
        found = one.result()
        assert (found.rows, found.min, found.mean, found.quantiles) == (4, None, None, None)
        assert not one.distribution.total


@pytest.fixture(scope="module")
def store() -> Blobs:
    return open_blobs("memory://")


@pytest.fixture(scope="module")
def version(make: Any, store: Blobs) -> Any:
    return make(store, over_days(0))


def over_days(later: int) -> dict[str, Any]:
    days = [FIRST + (later + i) * DAY for i in range(200)]
    return {
        "id": np.arange(200),
        "at": pa.array(days, pa.timestamp("us", "UTC")),
        "took": pa.array([dt.timedelta(minutes=i % 90) for i in range(200)], pa.duration("s")),
    }


def test_a_summary_tells_times_as_text(version: Any) -> None:
    _, at, took = summaries(version)
    assert (at.min, at.max) == ("2026-01-01T00:00:00Z", "2026-07-19T00:00:00Z")
    assert str(at.quantiles["0.5"]).startswith("2026-04-")
    assert str(at.std).startswith("P57D")
    assert (took.min, took.max) == ("PT0S", "PT1H29M")
    assert at.histogram is not None
    assert bars(at.histogram).startswith("2026-01-01T00:00:00Z █")


def test_a_range_and_a_distribution_of_times_are_inferred_and_checked(
    version: Any, make: Any, store: Blobs
) -> None:
    inferred = infer(store, version, "things@1")
    rules = {f"{each.column}.{each.rule}": each.values for each in inferred.rules}
    assert rules["at.range"] == {"least": "2025-12-12T02:24:00Z", "most": "2026-08-07T21:36:00Z"}
    assert rules["took.range"] == {"least": "PT0S", "most": "PT1H37M54S"}
    assert all(isinstance(each, str) for each in rules["at.distribution"]["edges"])
    assert Expectations.from_toml(inferred.to_toml()) == inferred
    assert check(store, version, inferred) == check_manifest(version, inferred) == []
    later = make(store, over_days(100))
    found = {each.expectation.name: each for each in check(store, later, inferred)}
    assert found["columns.at.range"].rows[0].row == 119
    assert "PSI" in found["columns.at.distribution"].what
    seen = {each.expectation.name: each.what for each in check_manifest(later, inferred)}
    assert seen["columns.at.range"].startswith("the largest value is 2026-10-27T00:00:00Z")
    moved = {each.column: each for each in drift(version, later)}
    assert moved["at"].far and not moved["took"].far
    assert moved["at"].facts["min"] == ("2026-01-01T00:00:00Z", "2026-04-11T00:00:00Z")


def test_ends_that_are_toml_times_are_taken(version: Any, store: Blobs) -> None:
    rules = Expectations.from_toml("[columns.at]\nrange = { most = 2026-01-10T00:00:00Z }\n")
    assert Expectations.from_toml(rules.to_toml()).rules == rules.rules
    (found,) = check(store, version, rules)
    assert (found.count, found.rows[0].row) == (190, 10)


@pytest.mark.parametrize(
    "rule, why",
    [
        ("[columns.at]\nrange = { most = 7 }", "7 cannot be compared"),
        ('[columns.id]\nrange = { most = "2026-01-10" }', "'2026-01-10' cannot be compared"),
        ('[columns.took]\nrange = { most = "PT0.5S" }', "finer than the column's unit"),
        ('[columns.at]\nrange = { most = "yesterday" }', "'yesterday' is no number or time"),
        ('[columns.at]\ndistribution = { most = 1, edges = ["2026-02-01", "2026-01-01"], '
         "shares = [0, 0, 1] }", "do not ascend"),
    ],
)  # fmt: skip
def test_ends_that_do_not_fit_the_column_are_refused(
    version: Any, store: Blobs, rule: str, why: str
) -> None:
    for ask in (lambda r: check(store, version, r), lambda r: check_manifest(version, r)):
        with pytest.raises(BadInput, match=why):
            ask(Expectations.from_toml(rule))
