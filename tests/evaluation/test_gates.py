from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.errors import BadInput
from penstock.evaluation import Suite, at_least, classification, not_worse
from penstock.evaluation.gates import Comparison, judge, passed
from penstock.evaluation.metrics import Moments, Tally
from penstock.evaluation.statistics import paired_difference, wilson
from penstock.records import from_json, to_json

NONE = ("skipped", "there is no m@production yet")


def accuracy(right: int, n: int):
    return Tally(n, right, Moments(n, 0.1, 1.0)).metrics()


def pair(gained: int, lost: int, n: int, loss: Moments | None = None) -> Comparison:
    return Comparison("m@1", n, gained, lost, loss or Moments())


def test_at_least_passes_when_the_lower_bound_holds():
    found = judge(at_least("accuracy", 0.95), accuracy(354, 360), None, NONE)
    assert found.outcome == "passed" and found.needed is None
    assert found.says == "accuracy 0.983 [0.964, 0.992] is at least 0.95"


def test_at_least_fails_when_even_the_upper_bound_is_below():
    found = judge(at_least("accuracy", 0.95), accuracy(40, 360), None, NONE)
    assert found.outcome == "failed" and found.says.endswith("is below 0.95")


def test_at_least_says_how_many_samples_would_decide():
    found = judge(at_least("accuracy", 0.95), accuracy(348, 360), None, NONE)
    assert found.outcome == "undecided"
    assert found.needed > 360 and f"about {found.needed:,} samples would tell" in found.says
    assert wilson(348 / 360 * found.needed, found.needed)[0] >= 0.95
    fewer = 0.98 * found.needed
    assert wilson(348 / 360 * fewer, fewer)[0] < 0.95


def test_a_rate_exactly_at_the_bound_is_never_decided():
    found = judge(at_least("accuracy", 0.95), accuracy(342, 360), None, NONE)
    assert (found.outcome, found.needed) == ("undecided", None)
    assert "no number of samples would tell" in found.says


@pytest.mark.parametrize(
    ("gained", "lost", "outcome"),
    [(30, 2, "passed"), (2, 1, "passed"), (2, 40, "failed"), (6, 12, "undecided")],
)
def test_not_worse_compares_on_the_same_samples(gained, lost, outcome):
    found = judge(not_worse("accuracy", 0.015), accuracy(350, 360), pair(gained, lost, 360), NONE)
    assert found.outcome == outcome
    assert "accuracy against m@1: " in found.says and "(+ is better)" in found.says


def test_not_worse_says_how_many_samples_would_decide():
    found = judge(not_worse("accuracy", 0.02), accuracy(350, 360), pair(6, 12, 360), NONE)
    factor = found.needed / 360
    assert paired_difference(6 * factor, 12 * factor, found.needed)[0] >= -0.02
    assert paired_difference(5.9 * factor, 11.8 * factor, 0.98 * found.needed)[0] < -0.02


def test_a_lower_loss_is_better():
    better, worse = Moments(100, 0.5, 1.0), Moments(100, -0.5, 1.0)
    gate = not_worse("loss", 0.1)
    assert judge(gate, {}, pair(0, 0, 100, better), NONE).outcome == "passed"
    assert judge(gate, {}, pair(0, 0, 100, worse), NONE).outcome == "failed"
    unsure = judge(gate, {}, pair(0, 0, 100, Moments(100, 0.0, 100.0)), NONE)
    assert unsure.outcome == "undecided" and 100 < unsure.needed < 1000


def test_without_a_baseline_the_gate_is_skipped_and_says_so():
    found = judge(not_worse("accuracy", 0.01), accuracy(9, 10), None, NONE)
    assert found.outcome == "skipped" and "there is no m@production yet" in found.says


def test_what_was_not_measured_fails():
    assert judge(not_worse("loss", 0.1), {}, pair(0, 0, 10), NONE).outcome == "failed"


@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 300), st.floats(0.001, 0.5))
def test_the_outcome_follows_from_the_bounds(gained, lost, same, margin):
    n = gained + lost + same
    low, high = paired_difference(gained, lost, n)
    found = judge(not_worse("accuracy", margin), {}, pair(gained, lost, n), NONE).outcome
    wanted = "passed" if low >= -margin else "failed" if high < -margin else "undecided"
    assert found == wanted


def test_no_gate_is_no_verdict():
    good = judge(at_least("accuracy", 0.5), accuracy(99, 100), None, NONE)
    skipped = judge(not_worse("accuracy", 0.1), {}, None, NONE)
    unsure = judge(at_least("accuracy", 0.5), accuracy(5, 10), None, NONE)
    assert passed([good]) and passed([good, skipped]) and passed([skipped])
    assert not passed([]) and not passed([good, unsure])


def test_a_suite_travels_as_json():
    suite = Suite(
        "digits", "digits:test", classification("label", ["image"]), slices=["label"],
        gates=[at_least("accuracy", 0.95), not_worse("loss", margin=0.1)],
    )  # fmt: skip
    assert from_json(Suite, to_json(suite)) == suite and hash(suite)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: at_least("acuracy", 0.9), 'Did you mean "accuracy"?'),
        (lambda: at_least("loss", 0.9), "no gate"),
        (lambda: at_least("accuracy", 95), "no gate"),
        (lambda: not_worse("accuracy", 0.0), "margin above 0"),
        (lambda: Suite("a b", "d:test", classification()), "suite name"),
        (lambda: Suite("a", "d:test:x", classification()), "not a reference"),
        (lambda: Suite("a", "d:test", "accuracy"), "classification"),
        (lambda: Suite("a", "d:test", classification(), batch_size=0), "batch_size"),
    ],
)
def test_a_suite_that_cannot_be_meant_is_refused(make, said):
    with pytest.raises(BadInput, match=said.replace("?", r"\?")):
        make()
