"""Statistics of every kind of column, merged over units as if they were one."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.data.columns import Column, column_of_type, tensor_array
from penstock.data.statistics import (
    CATEGORIES,
    Gatherer,
    Statistics,
    read_sketches,
    sketch_table,
)


def gathered(*arrays: pa.Array) -> Gatherer:
    found = Gatherer(column_of_type("x", arrays[0].type))
    for array in arrays:
        found.add(pa.chunked_array([array]))
    return found


def statistics(values: Any, kind: Any = None) -> Statistics:
    return gathered(pa.array(values, kind)).result()


def test_numbers() -> None:
    found = statistics([1, 2, 2, None, 7])
    assert (found.rows, found.nulls, found.min, found.max, found.mean) == (5, 1, 1, 7, 3.0)
    assert found.counts == {"1": 1, "2": 2, "7": 1}
    assert found.distinct == 3
    assert found.std == pytest.approx(np.std([1, 2, 2, 7]))
    assert found.quantiles is not None
    assert (found.quantiles[0], found.quantiles[3]) == (1.0, 2.0)


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    found = statistics([1.0, float("nan"), float("inf"), 3.0, None])
    assert (found.rows, found.nulls, found.not_finite) == (5, 1, 2)
    assert (found.min, found.max, found.mean, found.std) == (1.0, 3.0, 2.0, 1.0)


def test_a_mean_beyond_float64_is_no_mean() -> None:
    found = statistics([1e308, 1e308, 1e308])
    assert (found.mean, found.max) == (None, 1e308)


def test_words_and_bytes_tell_their_lengths() -> None:
    found = statistics(["é", "abc", None])
    assert (found.min, found.max, found.shortest, found.longest) == (1, 3, 1, 3)
    assert found.counts == {"abc": 1, "é": 1}
    found = statistics([b"", b"abc"])
    assert (found.shortest, found.longest, found.distinct, found.counts) == (0, 3, 2, None)


def test_lists_tell_elements_and_lengths() -> None:
    found = statistics([[1, 5], [], None, [9] * 7], pa.list_(pa.int32()))
    assert (found.rows, found.nulls, found.min, found.max) == (4, 1, 1, 9)
    assert (found.shortest, found.longest, found.distinct) == (0, 7, None)
    assert found.mean == pytest.approx(69 / 9)


def test_tensors_tell_their_elements() -> None:
    values = np.random.default_rng(0).normal(size=(50, 20, 20)).astype(np.float32)
    found = gathered(tensor_array(values)).result()
    assert (found.rows, found.min, found.max) == (50, values.min(), values.max())
    assert found.mean == pytest.approx(values.mean(dtype=np.float64))
    assert found.std == pytest.approx(1, abs=0.1)  # of 64 of 400 elements
    assert found.distinct is None


def test_long_lists_are_sampled_and_short_ones_are_not() -> None:
    lists = [[0] * 10, None, [1] * 1000, [2] * 64]
    found = gathered(pa.array(lists, pa.list_(pa.int64())))
    assert found.distribution.counts.tolist() == [10, 64, 64]
    sliced = pa.array([[7] * 500, *lists], pa.list_(pa.int64())).slice(1)
    assert gathered(sliced).distribution.counts.tolist() == [10, 64, 64]


def test_times_flags_and_references() -> None:
    found = statistics([dt.datetime(2026, 1, 1), None, dt.datetime(2026, 1, 1)])
    assert (found.rows, found.nulls, found.distinct) == (3, 1, 1)
    assert found.min == found.max == 1_767_225_600_000_000  # microseconds
    found = statistics([True, False, None, True])
    assert (found.min, found.max, found.counts) == (0, 1, {"false": 1, "true": 2})
    assert (found.quantiles or ())[3] in (0.0, 1.0)


def test_too_many_categories_are_not_counted() -> None:
    words = [str(i) for i in range(CATEGORIES + 1)]
    assert statistics(words[:-1]).counts is not None
    assert statistics(words).counts is None
    assert gathered(pa.array(words[:200]), pa.array(words[100:])).result().counts is None


@pytest.mark.parametrize("kind", ["int64", "string", "list", "tensor", "bool", "float64"])
def test_nothing_and_only_gaps_are_no_numbers(kind: str) -> None:
    types = {"list": pa.list_(pa.int8()), "tensor": pa.fixed_shape_tensor(pa.int8(), [2])}
    arrow = types.get(kind) or pa.type_for_alias(kind)
    column = column_of_type("x", arrow)
    found = Gatherer(column)
    found.add(pa.chunked_array([], arrow))
    if kind != "tensor":
        found.add(pa.chunked_array([pa.nulls(3, arrow)]))
    result = found.result()
    assert (result.min, result.max, result.mean, result.std, result.quantiles) == (None,) * 5
    assert result.nulls == result.rows


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(-1000, 1000) | st.none(), max_size=20), min_size=1))
def test_units_that_merge_are_as_one(units: list[list[int | None]]) -> None:
    column = Column("x", "number", "int64")
    whole, merged = Gatherer(column), Gatherer(column)
    for unit in units:
        chunk = pa.chunked_array([pa.array(unit, pa.int64())])
        whole.add(chunk)
        part = Gatherer(column)
        part.add(chunk)
        merged.merge(read_sketches(sketch_table([part]), [column])["x"])
    one, other = whole.result(), merged.result()
    assert one.mean == pytest.approx(other.mean)
    assert one.std == pytest.approx(other.std)
    for name in ("rows", "nulls", "min", "max", "counts", "quantiles", "distinct"):
        assert getattr(one, name) == getattr(other, name)


@pytest.mark.parametrize(
    "array",
    [
        pa.array([0.1, 1e300, float("nan")]),
        pa.array([2**63 - 1, -(2**63)]),
        pa.array(["a", None]),
        pa.array([b"a"]),
        pa.array([[1.5], None], pa.list_(pa.float32())),
        pa.array([dt.date(2026, 1, 1)]),
        tensor_array(np.ones((2, 3), np.uint8)),
        pa.array([None, 1.0]).slice(0, 1),
    ],
    ids=str,
)
def test_a_state_comes_back_as_it_was(array: pa.Array) -> None:
    found = gathered(array)
    (again,) = read_sketches(sketch_table([found]), [found.column]).values()
    assert again.row().keys() == found.row().keys()
    assert repr(again.row()) == repr(found.row())
    assert again.result() == found.result()
