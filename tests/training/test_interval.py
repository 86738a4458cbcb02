"""How often a run saves, where nobody says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.records import Attempt
from penstock.training.interval import FIRST, LEAST, MOST, Pacing, choose, failed
from penstock.training.wanted import compared


@given(st.lists(st.floats(0, 1e4), min_size=1), st.integers(0, 10**4), st.floats(0, 1e8))
def test_it_is_bounded_and_never_shorter_for_dearer_saves_or_longer_for_more_failures(
    costs, failures, seconds
):
    found = choose(costs, failures, seconds)
    assert LEAST <= found.seconds <= MOST
    assert choose([cost * 2 for cost in costs], failures, seconds).seconds >= found.seconds
    assert choose(costs, failures + 1, seconds).seconds <= found.seconds


def test_only_ends_before_their_time_are_failures():
    failures = ["rank 1 died by SIGKILL", "the agent died", "rank 0 hung at step 3", "interrupted"]
    causes = [*failures, "stopped on request", "preempted", "resized to 2 ranks", "finished"]
    rows = [
        Attempt("run-a", n, n, started_at=10.0 * n, from_step=0, ended_at=10.0 * n + 6, cause=cause)
        for n, cause in enumerate(causes)
    ]
    going_on = Attempt("run-a", 9, 9, started_at=90.0, from_step=0)
    assert failed([*rows, going_on], now=95.0) == (4, 6.0 * len(causes) + 5.0)


def test_the_first_save_comes_soon_and_tells_what_one_costs():
    pacing = Pacing("auto")
    assert pacing.seconds == FIRST
    parts = [{"extra": {"seconds": 0.1}, "seconds": cost} for cost in (0.1, 0.3)]
    interval = pacing.saved(parts)
    assert interval is not None and interval.cost == 0.4  # of the slowest rank
    assert pacing.seconds == interval.seconds == pytest.approx((2 * 0.4 * 6 * 3600) ** 0.5)
    assert pacing.saved(parts) is None  # the same again is not told again
    pacing.seen(failures=100, ran=3600.0)
    assert pacing.saved(parts).seconds < interval.seconds / 4


@pytest.mark.parametrize("asked", [30.0, None])
def test_what_was_asked_for_holds(asked):
    pacing = Pacing(asked)
    assert pacing.saved([{"extra": {}}]) is None
    assert pacing.seconds == asked


def test_the_default_of_earlier_runs_is_no_change():
    assert compared({"every": "30s"}) == compared({"every": "auto"})
    assert compared({"every": "20s"}) != compared({"every": "auto"})


@pytest.mark.torch
def test_a_run_says_how_often_it_saves_and_why(project):
    project.edit(("checkpoint_every=10,", ""), ("pause: float = 0.01", "pause: float = 0.0"))
    project.run("base", "1")
    interval = project.newest("base").spec["interval"]
    assert LEAST <= interval["seconds"] <= MOST and 0 < interval["cost"] < 60
    assert interval["between"] >= 6 * 3600
