"""Shards are passed over only where no row of theirs can pass. No Spark runs here."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.data.columns import Column
from penstock.data.spark.filters import Facts, may_hold

TESTS = {
    "=": lambda row, value: row == value,
    ">": lambda row, value: row > value,
    ">=": lambda row, value: row >= value,
    "<": lambda row, value: row < value,
    "<=": lambda row, value: row <= value,
}
WHOLE = st.integers(-(2**63), 2**63 - 1) | st.integers(2**53 - 3, 2**53 + 3) | st.integers(-5, 5)


@given(st.lists(st.none() | WHOLE, min_size=1), WHOLE, st.sampled_from(sorted(TESTS)))
def test_no_whole_number_that_passes_is_passed_over(rows, value, name):
    there = [row for row in rows if row is not None]
    ends = (float(min(there)), float(max(there))) if there else (None, None)
    facts = {"x": Facts(len(rows), len(rows) - len(there), *ends)}
    passes = any(TESTS[name](row, value) for row in there)
    columns = {"x": Column("x", "number", "int64")}
    assert may_hold([("x", name, value)], columns, facts) or not passes


FLOATS = st.floats(width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0])


def spark_greater(row, value, strictly):
    """NaN is greater than all, and equal to itself, as Spark has it."""
    if math.isnan(row):
        return not (strictly and math.isnan(value))
    return not math.isnan(value) and (row > value or (row == value and not strictly))


@given(st.lists(FLOATS, min_size=1), FLOATS, st.booleans())
def test_no_float_that_passes_is_passed_over_nor_a_nan(rows, value, strictly):
    numbers = np.array(rows)[~np.isnan(rows)]
    ends = (float(numbers.min()), float(numbers.max())) if len(numbers) else (None, None)
    facts = {"x": Facts(len(rows), 0, *ends)}
    columns = {"x": Column("x", "number", "float32")}
    name = ">" if strictly else ">="
    passes = any(spark_greater(row, value, strictly) for row in rows)
    assert may_hold([("x", name, value)], columns, facts) or not passes
    equal = any(row == value or (math.isnan(row) and math.isnan(value)) for row in rows)
    assert may_hold([("x", "=", value)], columns, facts) or not equal


@pytest.mark.parametrize(
    ("name", "value", "holds"),
    [
        ("=", "abc", True), ("=", "ab", False), ("=", "äöüß", True), ("<", "a", True),
        ("in", ("a", "abcd"), True), ("in", ("a", "ab"), False),
    ],
)  # fmt: skip
def test_of_text_the_lengths_are_known(name, value, holds):
    facts = {"t": Facts(10, 0, 3.0, 4.0)}
    assert may_hold([("t", name, value)], {"t": Column("t", "text", "string")}, facts) == holds
