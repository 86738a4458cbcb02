"""What a gang does next: every transition, and that it always comes to an end."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.jobs.budgets import LIMITS, Budget
from penstock.jobs.decide import (
    DAMAGED,
    GRACE,
    SETTLE,
    Clearing,
    Draining,
    Ended,
    Exit,
    Hung,
    Poll,
    Raised,
    Running,
    Settling,
    Starting,
    decide,
)

FULL = Budget()
RUNNING = Running(1, FULL)
KILLED = Exit(1, "SIGKILL", None, 5.0)
HUNG = Hung(1, 120, "train.py:12 in fit", {"rank": 1, "waiting": [0]})
ERROR = {"code": "user-code", "what": "ValueError: no", "facts": {"signature": "ValueError: no"}}
RAISED = Raised(0, 33, ERROR)


def settled(state, raised=RAISED, committed=0):
    """What follows when a rank raised, waited for, and everything is gone."""
    state = decide(state, Poll(at=0.0, raised=(raised,), committed=committed))
    assert isinstance(state, Settling)
    state = decide(state, Poll(at=SETTLE, raised=(raised,), committed=committed))
    return state, decide(state, Poll(at=1.0, gone=True, committed=committed))


def test_a_gang_whose_ranks_have_all_started_runs():
    assert decide(Starting(1, FULL), Poll(at=0.0)) == Starting(1, FULL)
    assert decide(Starting(1, FULL), Poll(at=0.0, started=True)) == RUNNING


def test_nothing_new_changes_nothing():
    for state in (RUNNING, Starting(2, FULL), Draining(1, FULL, "asked", 9.0)):
        assert decide(state, Poll(at=0.0)) == state


def test_a_death_clears_the_gang_and_starts_the_next_attempt():
    clearing = decide(RUNNING, Poll(at=0.0, exits=(KILLED,)))
    assert isinstance(clearing, Clearing) and clearing.then == "start"
    assert clearing.cause == "rank 1 died by SIGKILL"
    assert decide(clearing, Poll(at=9.0)) == clearing  # not before everything is gone
    assert decide(clearing, Poll(at=9.0, gone=True)) == Starting(2, clearing.budget)


def test_a_lost_agent_is_a_crash_and_leaves_nothing_to_wait_for():
    clearing = decide(RUNNING, Poll(at=0.0, agent_lost=True))
    assert isinstance(decide(clearing, Poll(at=0.0, agent_lost=True)), Starting)


def test_a_death_explains_an_exception_and_not_the_other_way_round():
    settling = decide(RUNNING, Poll(at=0.0, raised=(RAISED,)))
    clearing = decide(settling, Poll(at=0.01, raised=(RAISED,), exits=(KILLED,)))
    assert clearing.cause == "rank 1 died by SIGKILL"


def test_the_users_own_exception_is_tried_again_once():
    clearing, starting = settled(RUNNING)
    assert clearing.then == "start" and starting.attempt == 2
    again, ended = settled(Running(2, starting.budget))
    assert again.then == "fail"
    assert ended == Ended("failed", ERROR)


def test_an_exception_at_another_step_is_another_one():
    _, starting = settled(RUNNING)
    _, third = settled(Running(2, starting.budget), replace(RAISED, step=34))
    assert third.attempt == 3


def test_an_error_of_the_family_fails_at_once():
    bad = Raised(0, 0, {"code": "bad-input", "what": "nothing is tracked"})
    clearing, ended = settled(RUNNING, bad)
    assert clearing.then == "fail" and ended.outcome == "failed"


def test_a_stop_drains_and_ends_when_all_have_left():
    draining = decide(RUNNING, Poll(at=3.0, stop="asked"))
    assert draining == Draining(1, FULL, "asked", 3.0 + GRACE)
    assert decide(draining, Poll(at=4.0, stop="asked", left=True)) == Ended(
        "stopped", {"why": "asked"}
    )


@pytest.mark.parametrize(
    "trouble", [{"exits": (KILLED,)}, {"raised": (RAISED,)}, {"agent_lost": True}, {"at": 99.0}]
)
def test_whatever_happens_while_draining_still_stops(trouble):
    draining = Draining(1, FULL, "asked", 10.0)
    clearing = decide(draining, Poll(**{"at": 4.0, "stop": "asked", **trouble}))
    assert clearing.then == "stop"
    assert decide(clearing, Poll(at=5.0, stop="asked", gone=True)).outcome == "stopped"


def test_a_stop_that_comes_while_clearing_is_heard():
    clearing = decide(RUNNING, Poll(at=0.0, exits=(KILLED,)))
    assert decide(clearing, Poll(at=0.0, gone=True, stop="asked")) == Ended(
        "stopped", {"why": "asked"}
    )


def test_a_kill_ends_without_waiting_for_anybody_to_save():
    clearing = decide(RUNNING, Poll(at=0.0, kill=True))
    assert clearing.then == "stop"


def test_a_gang_that_finished_is_finished_even_when_a_stop_came_too_late():
    assert decide(RUNNING, Poll(at=0.0, finished=True, stop="asked")) == Ended("finished")


def test_an_image_that_cannot_start_fails_with_its_reason():
    reason = {"code": "unavailable", "what": "the image cannot start"}
    clearing = decide(Starting(1, FULL), Poll(at=0.0, broken=reason))
    assert decide(clearing, Poll(at=0.0, broken=reason)) == Ended("failed", reason)


def test_a_cluster_that_does_not_answer_interrupts_the_run_and_spends_nothing():
    reason = {"code": "unavailable", "what": "Ray did not answer"}
    clearing = decide(Starting(1, FULL), Poll(at=0.0, away=reason))
    assert clearing.budget == FULL
    assert decide(clearing, Poll(at=0.0, away=reason)) == Ended(
        "interrupted", {"why": "Ray did not answer"}
    )
    stopped = decide(clearing, Poll(at=0.0, away=reason, stop="asked"))
    assert stopped == Ended("stopped", {"why": "asked"})


def test_a_newer_state_in_memory_fills_the_budget_again_but_not_the_same_one():
    """What dies at step 57 each time gets to the state of step 56 each time, and ends."""
    state, poll = Running(1, Budget()), Poll(at=0.0, exits=(KILLED,), kept=56)
    for _ in range(LIMITS["crash"]):
        state = decide(state, poll)
        assert state.then == "start"
        state = Running(state.attempt + 1, state.budget)
    assert decide(state, poll).then == "fail"
    assert decide(state, replace(poll, kept=57)).budget == Budget(crash=1, kept=57)


def test_unhealthy_gradients_are_counted_until_there_is_a_checkpoint():
    low = Budget(gradients=3, crash=4, committed=10)
    assert low.refilled(10, kept=20) == Budget(gradients=3, committed=10, kept=20)
    assert low.refilled(12, kept=20) == Budget(committed=12, kept=20)
    assert Budget(committed=30, crash=1).refilled(30, kept=20) == Budget(committed=30, crash=1)


def test_a_newer_checkpoint_fills_the_budget_again():
    low = Budget(crash=LIMITS["crash"] - 1, hang=1, committed=10)
    same = decide(Running(5, low), Poll(at=0.0, exits=(KILLED,), committed=10))
    more = decide(Running(5, low), Poll(at=0.0, exits=(KILLED,), committed=20))
    assert same.budget == replace(low, crash=LIMITS["crash"])
    assert more.budget == Budget(crash=1, committed=20)


def test_crashes_without_progress_end_the_run():
    state = RUNNING
    for _ in range(LIMITS["crash"]):
        state = decide(decide(state, Poll(at=0.0, exits=(KILLED,))), Poll(at=0.0, gone=True))
        state = decide(state, Poll(at=0.0, started=True))
    assert state.attempt == LIMITS["crash"] + 1
    clearing = decide(state, Poll(at=0.0, exits=(KILLED,)))
    ended = decide(clearing, Poll(at=0.0, gone=True))
    assert ended.outcome == "failed" and ended.detail["code"] == "run-failed"


def test_a_hang_ends_the_attempt_and_names_rank_step_and_line():
    clearing = decide(RUNNING, Poll(at=0.0, hung=HUNG))
    assert clearing.then == "start" and clearing.detail == HUNG.told
    assert clearing.cause == "rank 1 hung at step 120 (train.py:12 in fit)"
    # The deaths that follow are ours.
    killed = Poll(at=1.0, hung=HUNG, exits=(KILLED,), gone=True)
    assert decide(clearing, killed) == Starting(2, clearing.budget)
    assert decide(Starting(1, FULL), Poll(at=0.0, hung=HUNG)).cause == clearing.cause


def test_hangs_have_a_budget_of_their_own_that_a_newer_checkpoint_fills_again():
    state = RUNNING
    for attempt in range(1, LIMITS["hang"] + 1):
        state = decide(state, Poll(at=0.0, hung=HUNG, committed=10 if attempt == 1 else 0))
        assert state.then == "start" and state.budget.crash == 0
        state = decide(state, Poll(at=0.0, gone=True))
    assert decide(state, Poll(at=0.0, hung=HUNG, committed=20)).then == "start"
    last = decide(state, Poll(at=0.0, hung=HUNG, committed=10))
    ended = decide(last, Poll(at=0.0, gone=True))
    assert ended.outcome == "failed" and ended.detail["code"] == "run-failed"
    assert f"{LIMITS['hang'] + 1} hangs in a row" in ended.detail["what"]
    assert "hang_seconds" in ended.detail["fix"] and ended.detail["facts"] == HUNG.told


@pytest.mark.parametrize(
    ("cause", "poll", "says"),
    [
        ("crash", Poll(at=0.0, exits=(KILLED,)), "died by SIGKILL"),
        ("memory", Poll(at=0.0, exits=(replace(KILLED, oom=True),)), "out of memory"),
        ("damage", Poll(at=0.0, exits=(Exit(0, None, DAMAGED),)), "met a damaged checkpoint"),
        ("agent", Poll(at=0.0, agent_lost=True), "the agent died"),
        ("hang", Poll(at=0.0, hung=HUNG), "hung at step 120"),
    ],
)
def test_every_cause_has_a_budget_of_its_own(cause, poll, says):
    """The others' being spent changes nothing; its own being spent ends the run, and says it."""
    others = {each: limit for each, limit in LIMITS.items() if each != cause}
    state = Running(1, Budget(**others))
    for _ in range(LIMITS[cause]):
        state = decide(state, poll)
        assert state.then == "start" and says in state.cause
        state = decide(state, replace(poll, gone=True))
    last = decide(state, poll)
    assert last.then == "fail" and last.detail["code"] == "run-failed"
    assert f"{LIMITS[cause] + 1} " in last.detail["what"] and last.detail["fix"]


@pytest.mark.parametrize(
    ("cause", "code"), [("memory", "out-of-memory"), ("gradients", "gradients-unhealthy")]
)
def test_what_a_rank_raised_of_these_is_tried_again_also_at_the_same_step(cause, code):
    error = {"code": code, "what": "no", "fix": "less", "facts": {"step": 33}}
    state = RUNNING
    for attempt in range(1, LIMITS[cause] + 1):
        clearing, state = settled(state, Raised(0, 33, error))
        assert clearing.then == "start" and state.attempt == attempt + 1
    clearing, ended = settled(state, Raised(0, 33, error))
    assert ended.outcome == "failed" and ended.detail["code"] == code
    assert ended.detail["what"].startswith("no; ") and ended.detail["fix"] == "less"


def test_a_gang_of_another_size_takes_over_when_this_one_has_saved():
    poll = Poll(at=3.0, resize="resized to 1 rank")
    draining = decide(RUNNING, poll)
    assert draining == Draining(1, FULL, "resized to 1 rank", 3.0 + GRACE, "start")
    clearing = decide(draining, replace(poll, left=True))
    assert clearing == Clearing(1, FULL, "start", "resized to 1 rank")
    assert decide(clearing, replace(poll, gone=True)) == Starting(2, FULL)
    assert decide(draining, replace(poll, at=99.0)).then == "start"  # it did not save in time
    assert decide(draining, replace(poll, exits=(KILLED,))).then == "start"
    assert decide(Starting(1, FULL), poll) == Starting(1, FULL)


def test_a_stop_holds_also_where_another_gang_was_to_take_over():
    draining = decide(RUNNING, Poll(at=3.0, resize="resized to 1 rank"))
    stopping = decide(draining, Poll(at=4.0, stop="asked"))
    assert stopping == Draining(1, FULL, "asked", 4.0 + GRACE)
    assert decide(stopping, Poll(at=5.0, stop="asked", left=True)).outcome == "stopped"


def test_a_gang_that_hangs_while_it_drains_is_ended_before_its_deadline():
    draining = Draining(1, FULL, "asked", 10.0)
    clearing = decide(draining, Poll(at=1.0, stop="asked", hung=HUNG))
    assert clearing.then == "stop" and clearing.cause == "asked"


exits = st.builds(
    Exit,
    st.integers(0, 3),
    st.sampled_from(["SIGKILL", "SIGSEGV", None]),
    st.sampled_from([1, 9, DAMAGED]),
    oom=st.booleans(),
)
raises = st.builds(
    Raised,
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from(
        [
            ERROR,
            {"code": "user-code", "what": "other"},
            {"code": "x", "what": "y"},
            {"code": "out-of-memory", "what": "no room"},
            {"code": "gradients-unhealthy", "what": "norm: nan"},
        ]
    ),
)
polls = st.builds(
    Poll,
    at=st.floats(0, 100),
    committed=st.integers(0, 3),
    started=st.booleans(),
    exits=st.lists(exits, max_size=2).map(tuple),
    raised=st.lists(raises, max_size=2).map(tuple),
    hung=st.sampled_from([None, None, HUNG]),
    finished=st.booleans(),
    left=st.booleans(),
    gone=st.booleans(),
    agent_lost=st.booleans(),
    stop=st.sampled_from([None, "asked"]),
    kill=st.booleans(),
    broken=st.sampled_from([None, {"code": "unavailable"}]),
    away=st.sampled_from([None, None, {"code": "unavailable", "what": "away"}]),
)


@given(st.lists(polls, max_size=60))
def test_no_gang_is_started_without_budget_and_attempts_rise_by_one(sequence):
    state, seen = Starting(1, FULL), 0
    for poll in sorted(sequence, key=lambda p: (p.at, p.committed)):
        seen = max(seen, poll.committed)
        after = decide(state, replace(poll, committed=seen))
        if isinstance(after, Starting) and not isinstance(state, Starting):
            assert isinstance(state, Clearing) and state.then == "start"
            assert after.attempt == state.attempt + 1
            spent = {cause: getattr(after.budget, cause) for cause in LIMITS}
            assert any(spent.values())
            assert all(0 <= spent[cause] <= LIMITS[cause] for cause in LIMITS)
        elif not isinstance(after, Ended):
            assert after.attempt == state.attempt
        if isinstance(state, Ended):
            assert after == state
        state = after


@given(st.lists(polls, min_size=1, max_size=4), st.integers(0, 3))
def test_without_progress_every_run_that_keeps_failing_ends(troubles, committed):
    """Whatever fails, in whatever order, again and again."""
    state, at = RUNNING, 0.0
    for turn in range(4 * (sum(LIMITS.values()) + 2)):
        at += 1.0
        trouble = troubles[turn % len(troubles)]
        exits_or_raised = trouble if trouble.exits or trouble.raised else Poll(0, exits=(KILLED,))
        poll = replace(exits_or_raised, at=at, committed=committed, gone=True)
        state = decide(state, poll)
    assert isinstance(state, Ended)
