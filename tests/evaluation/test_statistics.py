from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from penstock.evaluation.statistics import (
    mean_interval,
    paired_difference,
    samples_needed,
    t_quantile,
    wilson,
)

counts = st.integers(0, 400)


@given(counts, counts)
def test_wilson_holds_the_rate_and_is_what_scipy_computes(right, wrong):
    n = right + wrong
    low, high = wilson(right, n)
    assert 0 <= low <= high <= 1
    if n:
        assert low <= right / n <= high
        known = stats.binomtest(right, n).proportion_ci(method="wilson")
        assert (low, high) == pytest.approx((known.low, known.high), abs=1e-9)


@pytest.mark.parametrize(
    ("gained", "lost", "n", "low", "high"),
    [
        (1, 7, 21, -0.517, -0.026),  # Fagerlund, Lydersen, Laake 2014, table 5: airway reactivity
        (0, 0, 100, -0.037, 0.037),
    ],
)
def test_the_paired_interval_is_the_published_one(gained, lost, n, low, high):
    assert paired_difference(gained, lost, n) == pytest.approx((low, high), abs=5e-4)


@given(counts, counts, counts)
def test_the_paired_interval_holds_the_difference_and_mirrors(gained, lost, same):
    n = gained + lost + same
    low, high = paired_difference(gained, lost, n)
    assert -1 <= low <= high <= 1
    if n:
        assert low - 1e-9 <= (gained - lost) / n <= high + 1e-9
    other = paired_difference(lost, gained, n)
    assert (low, high) == pytest.approx((-other[1], -other[0]), abs=1e-9)


@given(st.integers(1, 5000))
def test_the_t_quantile_is_what_scipy_computes(freedom):
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-5)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_the_mean_interval_is_students(values):
    array = np.array(values)
    low, high = mean_interval(array.mean(), ((array - array.mean()) ** 2).sum(), len(array))
    half = stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array))
    assert (high - low) / 2 == pytest.approx(half, rel=2e-6, abs=1e-9)
    assert (high + low) / 2 == pytest.approx(array.mean(), abs=1e-9)


def test_intervals_cover_what_they_promise():
    """Of 2,000 samples of known truth about 95 % of the intervals hold it."""
    random = np.random.default_rng(7)
    right = random.binomial(60, 0.9, 2000)
    held = np.mean([low <= 0.9 <= high for low, high in (wilson(k, 60) for k in right)])
    pairs = random.multinomial(80, [0.1, 0.05, 0.85], 2000)
    paired = [paired_difference(b, c, 80) for b, c, _ in pairs]
    held_too = np.mean([low <= 0.05 <= high for low, high in paired])
    assert 0.93 < held < 0.975 and 0.93 < held_too < 0.975


@given(st.integers(1, 1000), st.integers(1, 10**7))
def test_samples_needed_finds_the_threshold(have, threshold):
    needed = samples_needed(lambda n: n >= threshold, have)
    assert needed >= max(have, threshold)
    assert needed <= max(have, threshold) * 1.002 + 2


def test_samples_needed_gives_up():
    assert samples_needed(lambda n: False, 10) is None


def test_nothing_tried_says_nothing():
    assert wilson(0, 0) == (0, 1) and paired_difference(0, 0, 0) == (-1, 1)
    assert mean_interval(3.0, 0.0, 1) == (-math.inf, math.inf)
