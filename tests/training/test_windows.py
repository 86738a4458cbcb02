"""Where a run goes back to, and what it leaves out: pure."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.training.windows import Window, go_back, is_inside, left_out, read


def test_it_goes_back_to_the_newest_checkpoint_before_the_trouble():
    assert go_back([10, 20, 30, 40], [], first=34, until=43) == Window(30, 34, 43)
    assert go_back([10, 20, 30, 40], [], first=30, until=39) == Window(20, 30, 39)
    assert go_back([], [], first=4, until=9) == Window(0, 4, 9)


def test_trouble_that_comes_right_back_sends_it_further_back():
    first = Window(30, 34, 43)
    assert go_back([10, 20, 30], [first], first=46, until=55) == Window(20, 46, 55)
    assert go_back([10, 20, 30, 70], [first], first=75, until=84) == Window(70, 75, 84)


def test_a_fork_never_goes_back_beyond_its_beginning():
    assert go_back([50], [], first=52, until=61, origin=50).after == 50
    assert go_back([50], [Window(50, 52, 61)], first=63, until=72, origin=50).after == 50


def test_steps_left_out_are_those_beyond_the_state_at_hand():
    windows = [Window(30, 34, 43), Window(70, 75, 84)]
    assert left_out(windows, 0) == [(31, 43), (71, 84)]
    assert left_out(windows, 35) == [(36, 43), (71, 84)]
    assert left_out(windows, 43) == [(71, 84)]
    assert left_out(windows, 90) == []


def test_a_state_from_inside_a_window_is_told_from_those_before_and_after():
    window = Window(after=10, first=14, until=20)
    inside = [step for step in range(30) if is_inside([window], step)]
    assert inside == list(range(11, 21))


def test_windows_stand_in_a_runs_result():
    window = Window(30, 34, 43)
    assert read({"left_out": [window.as_dict()]}) == [window]
    assert read({"steps": 3}) == []


@given(
    st.sets(st.integers(1, 200)),
    st.lists(st.tuples(st.integers(0, 150), st.integers(1, 20), st.integers(0, 10))),
    st.integers(1, 200),
    st.integers(0, 20),
)
def test_a_window_begins_before_the_trouble_and_covers_it(checkpoints, known, first, length):
    windows = [Window(after, after + first, after + first + more) for after, first, more in known]
    found = go_back(checkpoints, windows, first, first + length)
    assert 0 <= found.after < first <= found.until
    assert found.after == 0 or found.after in checkpoints
