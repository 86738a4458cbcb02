"""Sketches: exact while small, near the truth when full, the same in whatever order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock.data.columns import Column
from penstock.data.sketches import (
    BUCKETS,
    SMALLEST,
    Distinct,
    Distribution,
    hash_values,
    mix,
    slices,
)

numbers = hnp.arrays(
    np.float64, st.integers(0, 200), elements=st.floats(allow_nan=False, allow_infinity=False)
)


def same(one: Distribution, other: Distribution) -> bool:
    return (
        one.shift == other.shift
        and one.keys.tolist() == other.keys.tolist()
        and one.counts.tolist() == other.counts.tolist()
    )


def wide(seed: int, size: int) -> np.ndarray:
    """Numbers over some 600 powers of two, of both signs."""
    chance = np.random.default_rng(seed)
    return chance.normal(size=size) * 2.0 ** chance.integers(-300, 300, size)


@settings(deadline=None)
@given(st.lists(numbers, max_size=6), st.randoms(use_true_random=False))
def test_a_distribution_is_the_same_however_values_come(
    parts: list[np.ndarray], chance: Any
) -> None:
    whole = Distribution()
    whole.add(np.concatenate([np.empty(0), *parts]))
    merged = Distribution()
    for part in chance.sample(parts, len(parts)):
        other = Distribution()
        other.add(part)
        merged.merge(other)
    assert same(whole, merged)
    assert whole.total == sum(map(len, parts))


@pytest.mark.parametrize("order", [1, -1])
def test_a_full_distribution_is_the_same_however_values_come(order: int) -> None:
    values = wide(0, 40_000)
    whole, merged = Distribution(), Distribution()
    whole.add(values)
    for part in np.array_split(values, 37)[::order]:
        other = Distribution()
        other.add(part)
        merged.merge(other)
    assert whole.shift > Distribution().shift
    assert BUCKETS // 2 < len(whole.keys) <= BUCKETS
    assert same(whole, merged)


@settings(deadline=None)
@given(numbers.filter(len))
def test_every_value_lies_in_a_bucket_and_buckets_are_narrow(values: np.ndarray) -> None:
    found = Distribution()
    found.add(values)
    low, high = found.edges()
    assert all(((low <= v) & (v <= high)).any() for v in values)
    outer, inner = np.maximum(abs(low), abs(high)), np.minimum(abs(low), abs(high))
    normal = inner > 1e-300
    assert (outer[normal] - inner[normal] <= inner[normal] / 128 * 1.0001).all()


def test_quantiles_are_near_the_truth() -> None:
    values = np.random.default_rng(1).lognormal(size=20_000)
    found = Distribution()
    found.add(values)
    shares = [0.01, 0.25, 0.5, 0.75, 0.99]
    assert found.quantiles(shares) == pytest.approx(np.quantile(values, shares), rel=0.01)
    limits = np.quantile(values, shares)
    assert found.below(limits) / 20_000 == pytest.approx(shares, abs=0.005)


def test_zero_and_minus_zero_are_one_value() -> None:
    found = Distribution()
    found.add(np.array([0.0, -0.0]))
    assert found.quantiles([0.0, 1.0]) == [0.0, 0.0]
    hashes = hash_values(pa.array([0.0, -0.0]), Column("x", "number", "float64"))
    assert len(set(hashes.tolist())) == 1


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=300))
def test_few_distinct_values_are_counted_exactly(values: list[int]) -> None:
    found = Distinct()
    column = Column("x", "number", "int64")
    for part in (values[::2], values[1::2], values[:10]):
        found.add(hash_values(pa.array(part, pa.int64()), column))
    assert found.count == len(set(values))


def test_many_distinct_values_are_estimated_and_merge_in_any_order() -> None:
    column = Column("x", "text", "string")
    true = 50_000
    parts = [
        hash_values(pa.array([f"v{i}" for i in range(start, true, 3)]), column)
        for start in (0, 1, 2)
    ]
    found, other = Distinct(), Distinct()
    for part in parts:
        found.add(part)
    for part in reversed(parts):
        single = Distinct()
        single.add(part)
        other.merge(single)
    assert found.smallest.tolist() == other.smallest.tolist()
    assert len(found.smallest) == SMALLEST
    assert found.count == pytest.approx(true, rel=0.1)


def test_slices_are_the_bytes_of_values_also_of_a_piece_of_an_array() -> None:
    array = pa.array(["a", "", "bcd", "é"])
    assert [bytes(each) for each in slices(array.slice(1))] == [b"", b"bcd", "é".encode()]
    assert slices(pa.array([], pa.binary())) == []
    assert [bytes(each) for each in slices(pa.array([b"", b""]))] == [b"", b""]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=30), st.integers(0, 3))
def test_the_hash_of_bytes_is_that_of_their_words(values: list[bytes], skipped: int) -> None:
    """Whatever lies before and behind them in memory."""

    def plain(value: bytes) -> int:
        if len(value) > 64:
            return xxhash.xxh3_64_intdigest(value)
        found = _mixed(len(value))
        for at in range(0, len(value), 8):
            found = _mixed(found ^ int.from_bytes(value[at : at + 8], "little"))
        return found

    array = pa.array(values, pa.binary()).slice(skipped)
    found = hash_values(array, Column("x", "bytes", "binary"))
    assert found.tolist() == [plain(each) for each in values[skipped:]]


def _mixed(value: int) -> int:
    return int(mix(np.array([value], np.uint64))[0])
