"""A slow rank is found by what it does while the others wait."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.jobs.stragglers import FEWEST, Step, said, stragglers

STEP = 0.1


def rank(data: float = 0.01, compute: float = 0.05, steps: int = 20) -> list[Step]:
    """All steps end together after 0.1 s: what is neither data nor compute is waiting."""
    return [Step(STEP, data, 0.0, max(0.0, STEP - data - compute))] * steps


def test_one_that_is_slow_in_data_is_named_with_what_it_costs() -> None:
    (slow,) = stragglers({0: rank(), 1: rank(), 2: rank(data=0.05), 3: rank()})
    assert (slow.rank, slow.part, slow.steps) == (2, "data", 20)
    assert abs(slow.seconds - 0.05) < 1e-9 and abs(slow.others - 0.01) < 1e-9
    assert abs(slow.slowdown - 0.1 / 0.06) < 1e-9
    assert abs(slow.waited - 0.04) < 1e-9


def test_one_that_is_slow_in_compute_is_told_from_its_mate_although_both_take_as_long() -> None:
    (slow,) = stragglers({0: rank(compute=0.09), 1: rank(compute=0.03)})
    assert (slow.rank, slow.part) == (0, "compute")


def test_what_is_even_or_little_or_too_short_is_no_word_worth() -> None:
    assert stragglers({0: rank(), 1: rank()}) == []
    assert stragglers({0: rank(compute=0.05), 1: rank(compute=0.055)}) == []
    tiny = [Step(STEP, 0.0001, 0.0, 0.09)] * 20
    assert stragglers({0: tiny, 1: [Step(STEP, 0.0004, 0.0, 0.09)] * 20}) == []
    few = FEWEST - 1
    assert stragglers({0: rank(steps=few), 1: rank(data=0.05, steps=few)}) == []
    assert stragglers({0: rank(data=0.09)}) == []
    assert stragglers({}) == []


def test_single_odd_steps_and_checkpoints_move_nothing() -> None:
    odd = [*rank(), *[Step(9.0, 8.0, 0.5, 0.0)] * 5]
    assert stragglers({0: odd, 1: [*rank(), *rank(steps=5)]}) == []
    saving = [Step(1.0, 0.01, 0.9, 0.04)] * 20  # in every step, as long as it takes
    assert stragglers({0: saving, 1: rank()}) == []


def test_where_waiting_is_not_told_only_data_is_compared() -> None:
    blind = [Step(STEP, 0.01)] * 20
    assert stragglers({0: blind, 1: [Step(2 * STEP, 0.01)] * 20}) == []
    (slow,) = stragglers({0: blind, 1: [Step(STEP, 0.06)] * 20})
    assert (slow.rank, slow.part) == (1, "data")


SECONDS = st.floats(0, 2, allow_nan=False)
STEPS = st.lists(st.builds(Step, SECONDS, SECONDS, SECONDS, SECONDS), min_size=10, max_size=12)


def test_two_slow_ones_of_three_are_the_usual() -> None:
    assert stragglers({0: rank(compute=0.08), 1: rank(compute=0.08), 2: rank(compute=0.01)}) == []


@given(st.dictionaries(st.integers(0, 5), STEPS, max_size=5))
def test_whatever_is_told_half_of_the_ranks_at_most_are_slow(ranks) -> None:
    found = stragglers(ranks)
    assert len(found) <= len(ranks) / 2
    assert all(each.slowdown >= 1.25 and each.waited >= 0 for each in found)


def test_it_is_said_in_one_line() -> None:
    assert said(3, "data", 0.041, 0.0002, 1.8, 0.0178) == (
        "rank 3 is 1.8x slower than the median, in data: 41 ms a step, the others 0.2 ms; "
        "they wait 17.8 ms a step for it"
    )
