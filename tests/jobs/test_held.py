"""Which slots of the memory tier stay, and when they are filled."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.jobs.agent.held import newest_common, next_step, useless
from penstock.jobs.agent.pacing import Pacing
from penstock.jobs.words import Words


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=60))
def test_whatever_the_order_no_seat_keeps_more_than_two_and_what_is_whole_stays(
    doings: list[tuple[int, int]],
) -> None:
    """Seats fill states in order, some leave one out; what all hold is never let go of before all
    hold a newer one."""
    held: dict[int, list[tuple[int, int]]] = {0: [], 1: [], 2: []}
    at = dict.fromkeys(held, 0)
    common = None
    for seat, leap in doings:
        at[seat] += 1 + leap // 3
        held[seat].append((1, at[seat]))
        for each, names in useless(held).items():
            held[each] = [name for name in held[each] if name not in names]
        newest = newest_common(held)
        assert common is None or (newest is not None and newest >= common)
        assert all(len(names) <= 2 for names in held.values())
        common = newest


def test_a_later_gang_s_state_is_newer_whatever_its_step() -> None:
    assert newest_common({0: [(1, 50), (2, 20)], 1: [(1, 50), (2, 20)]}) == (2, 20)
    assert useless({0: [(1, 50), (2, 20)], 1: [(1, 50)]}) == {0: set(), 1: set()}


def test_what_one_seat_left_out_is_kept_by_nobody() -> None:
    assert useless({0: [(1, 1), (1, 2)], 1: [(1, 1), (1, 3)]}) == {0: {(1, 2)}, 1: set()}


def test_the_interval_is_a_second_or_what_costs_one_percent() -> None:
    assert next_step([10, 12], pace=100.0, cost=0.001) == 112
    assert next_step([10, 12], pace=100.0, cost=0.05) == 512
    assert next_step([10, 12], pace=0.01, cost=0.001) == 14  # at least two steps ahead


def test_a_step_is_announced_ahead_and_the_next_one_when_all_went_past_it() -> None:
    words, now = Words.create(2), [0.0]
    pacing = Pacing(words, clock=lambda: now[0])

    def reached(*steps: int, at: float) -> int:
        for rank, step in enumerate(steps):
            words.set_step(rank, step)
        now[0] = at
        pacing.look(0.0)
        return words.keep_at

    assert reached(0, 0, at=0.0) == 0
    assert reached(5, 4, at=1.0) == 0  # the pace is not known yet
    assert reached(6, 5, at=1.1) == 0  # nor after one step
    assert reached(14, 14, at=2.0) == 24
    assert reached(25, 23, at=3.0) == 24
    assert reached(25, 24, at=3.0) == 35
    pacing.look(None)
    assert words.keep_at == 35
    words.close()


def test_nothing_is_announced_where_nothing_can_be_kept() -> None:
    words = Words.create(1)
    pacing = Pacing(words, clock=iter(range(100)).__next__)
    for step in range(1, 30, 3):
        words.set_step(0, step)
        pacing.look(None)
    assert words.keep_at == 0
    words.close()
