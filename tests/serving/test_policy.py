"""What the keeper decides, without a process."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.serving.policy import BUDGET, Seen, decide, pause

references = st.sampled_from([None, "a@1", "a@2"])
looks = st.builds(
    Seen,
    wanted=references,
    serving=references,
    starting=references,
    failures=st.integers(0, BUDGET),
    retry_at=st.sampled_from([0.0, 10.0]),
    given_up=st.booleans(),
    now=st.just(5.0),
)


@given(looks)
def test_what_answers_is_never_stopped_while_anything_is_wanted(seen: Seen) -> None:
    if seen.wanted is not None:
        assert decide(seen) != "stop"


@given(looks)
def test_nothing_is_started_that_is_there_or_not_wanted(seen: Seen) -> None:
    if decide(seen) == "start":
        assert seen.wanted not in (None, seen.serving)
        assert seen.starting is None
        assert seen.failures < BUDGET
        assert seen.now >= seen.retry_at


@given(looks)
def test_following_the_decisions_ends_in_what_is_wanted_or_in_giving_up(seen: Seen) -> None:
    now, serving, starting = seen.now, seen.serving, seen.starting
    for _ in range(10):
        look = Seen(seen.wanted, serving, starting, seen.failures, seen.retry_at, False, now)
        match decide(look):
            case "start":
                starting = seen.wanted
            case "abandon":
                starting = None
            case "stop":
                serving = None
            case "give-up":
                return
            case "wait" if starting is not None:
                serving, starting = starting, None  # it became ready
            case "wait":
                now += 10
    assert (serving, starting) == (seen.wanted, None)


@given(st.integers(1, 50))
def test_pauses_never_shrink_and_are_bounded(failures: int) -> None:
    assert 0.0 <= pause(failures) <= pause(failures + 1) <= 10.0
