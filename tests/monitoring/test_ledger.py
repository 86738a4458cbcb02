"""Every second of every rank has one class, whatever happened to the run."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.monitoring import CLASSES, Ledger, Told, ledger
from penstock.records import Attempt, Event, Run

EPOCH = 1_700_000_000.0


def run_of(world: int = 1, ended: float | None = None, created: float = 0.0) -> Run:
    spec = {"world_size": world}
    end = None if ended is None else EPOCH + ended
    state = "running" if ended is None else "finished"
    return Run("r", "base", "train", state, spec, created_at=EPOCH + created, ended_at=end)


def attempt(number: int, start: float, end: float | None, cause: str | None = None) -> Attempt:
    ended = None if end is None else EPOCH + end
    return Attempt("r", number, number, EPOCH + start, 0, ended, None, cause or "finished")


def event(kind: str, at: float, number: int | None = None, **body: object) -> Event:
    told = body if number is None else {"attempt": number, **body}
    return Event(1, EPOCH + at, "run/r", kind, dict(told))


def told(began: float, *steps: tuple[int, float, float, float], loop: float | None = None) -> Told:
    """steps: number, end, seconds, seconds of waiting for data"""
    made = Told(EPOCH + began)
    for number, end, seconds, data in steps:
        made.steps.append(number)
        made.ends.append(EPOCH + end)
        made.seconds.append(seconds)
        made.data.append(data)
        for amounts in (made.samples, made.tokens, made.flops):
            amounts.append(math.nan)
    if steps or loop is not None:
        made.loop = EPOCH + (steps[0][1] - steps[0][2] if loop is None else loop)
        made.looping = True
    return made


def seconds(found: Ledger) -> dict[str, float]:
    return {name: round(value, 6) for name, value in found.seconds.items() if value > 1e-9}


def adds_up(found: Ledger) -> None:
    for rank in found.ranks:
        assert sum(rank.seconds.values()) == pytest.approx(rank.wall, abs=1e-6)
        assert min(rank.seconds.values()) >= 0.0
    assert sum(found.seconds.values()) == pytest.approx(found.rank_seconds, abs=1e-6)
    assert found.goodput is None or 0.0 <= found.goodput <= 1.0 + 1e-9


def test_a_run_that_nobody_touched() -> None:
    one = told(1, (1, 6, 2, 0.5), (2, 8, 2, 0.5))
    one.spans.append(("evaluation", EPOCH + 7, EPOCH + 7.25))
    one.spans.append(("publishing", EPOCH + 8.5, EPOCH + 9))
    one.looping = False
    found = ledger(
        run_of(ended=10), [attempt(1, 0.5, 9.5)], [], {(1, 0): one}, EPOCH + 99, alive=False
    )
    adds_up(found)
    assert seconds(found) == {
        "start-up": 4.0,
        "productive": 2.75,
        "data": 1.0,
        "evaluation": 0.25,
        "publishing": 0.5,
        "ending": 1.5,
    }
    assert found.goodput == pytest.approx(2.75 / 6)
    assert (found.wall, found.steps, found.recomputed_steps) == (10.0, 2, 0)


def test_a_death_costs_the_step_at_hand_the_recovery_and_what_is_computed_again() -> None:
    first = told(1, (1, 3, 1, 0), (2, 4, 1, 0))
    second = told(6, (2, 8, 1, 0.25), (3, 9, 1, 0.25))
    second.looping = False
    found = ledger(
        run_of(ended=9),
        [attempt(1, 0, 5, "rank 0 died by SIGKILL"), attempt(2, 5.5, 9)],
        [event("rank.died", 4.9, 1, seen_at=EPOCH + 4.5)],
        {(1, 0): first, (2, 0): second},
        EPOCH + 99,
        alive=False,
    )
    adds_up(found)
    assert seconds(found) == {
        "start-up": 2.0,
        "productive": 2.75,
        "data": 0.25,
        "recomputed": 1.5,  # half a second of step 3 that was lost, and step 2 once more
        "recovery": 2.5,  # from 4.5 to 7
    }
    assert found.recomputed_steps == 1


def test_a_step_that_was_saved_but_not_told_is_not_lost() -> None:
    first, second = told(0, (1, 2, 1, 0)), told(4, (3, 6, 1, 0))  # 2 was saved before the death
    rows = [attempt(1, 0, 3, "died"), attempt(2, 3, 6)]
    events = [event("rank.died", 3, 1)]
    found = ledger(run_of(ended=6), rows, events, {(1, 0): first, (2, 0): second}, EPOCH, False)
    adds_up(found)
    assert "recomputed" not in seconds(found)


def test_a_hang_lasts_from_each_ranks_last_sign_of_life_to_the_verdict() -> None:
    tracks = {(1, 0): told(0, (1, 2, 1, 0)), (1, 1): told(0, (1, 2, 1, 0))}
    ranks = [{"rank": 0, "seconds": 5.0}, {"rank": 1, "seconds": 6.0}]
    found = ledger(
        run_of(world=2),
        [attempt(1, 0, 9, "rank 1 hung")],
        [event("rank.hung", 9, 1, rank=1, seconds=6.0, ranks=ranks)],
        tracks,
        EPOCH + 10,
        alive=True,
    )
    adds_up(found)
    assert [rank.seconds["hang"] for rank in found.ranks] == pytest.approx([5.0, 6.0])
    assert [rank.seconds["recovery"] for rank in found.ranks] == pytest.approx([1.0, 1.0])


def test_what_nobody_carried_out_is_idle() -> None:
    first, second = told(0, (1, 2, 1, 0)), told(20, (2, 23, 1, 0))
    second.looping = False
    interrupted = replace(attempt(1, 0, 19), cause="interrupted")
    rows, tracks = [interrupted, attempt(2, 20, 23)], {(1, 0): first, (2, 0): second}
    found = ledger(run_of(ended=23), rows, [], tracks, EPOCH, alive=False)
    adds_up(found)
    assert seconds(found) == {"start-up": 1, "productive": 2, "idle": 18, "recovery": 2}

    stopped = [event("run.stopped", 2.75)]
    rows = [attempt(1, 0, 2.5, "stopped on request"), attempt(2, 20, 23)]
    first.looping = False
    found = ledger(run_of(ended=23), rows, stopped, tracks, EPOCH, alive=False)
    adds_up(found)
    assert seconds(found) == {
        "start-up": 3,
        "productive": 2,
        "ending": 0.75,
        "idle": 17.25,
    }


def test_a_preempted_run_lost_nothing_and_waited_for_whoever_went_on_with_it() -> None:
    first, second = told(0, (1, 2, 1, 0)), told(20, (2, 23, 1, 0))
    first.looping = second.looping = False
    events = [event("run.preempted", 2.75)]
    rows = [attempt(1, 0, 2.5, "preempted"), attempt(2, 20, 23)]
    tracks = {(1, 0): first, (2, 0): second}
    found = ledger(run_of(ended=23), rows, events, tracks, EPOCH, alive=False)
    adds_up(found)
    again = {"start-up": 3, "productive": 2, "ending": 0.75, "idle": 17.25}
    assert seconds(found) == again
    waiting = ledger(run_of(), rows[:1], events, tracks, EPOCH + 9, alive=False)
    adds_up(waiting)
    assert seconds(waiting) == {"start-up": 1, "productive": 1, "ending": 0.75, "idle": 6.25}


def test_while_it_goes_on_the_step_at_hand_is_work_and_an_open_evaluation_is_known() -> None:
    one = told(0, (1, 2, 1, 0))
    live = ledger(run_of(), [attempt(1, 0, None)], [], {(1, 0): one}, EPOCH + 5, alive=True)
    adds_up(live)
    assert seconds(live) == {"start-up": 1, "productive": 4}
    one.inside, one.since = "evaluation", EPOCH + 3
    live = ledger(run_of(), [attempt(1, 0, None)], [], {(1, 0): one}, EPOCH + 5, alive=True)
    adds_up(live)
    assert seconds(live) == {"start-up": 1, "productive": 2, "evaluation": 2}


def test_before_the_first_attempt_and_without_signals() -> None:
    waiting = ledger(run_of(world=2), [], [], {}, EPOCH + 3, alive=True)
    adds_up(waiting)
    assert seconds(waiting) == {"start-up": 6} and waiting.goodput is None
    silent = ledger(run_of(), [attempt(1, 1, None)], [], {}, EPOCH + 3, alive=True)
    adds_up(silent)
    assert seconds(silent) == {"start-up": 3}


TIME = st.floats(-5, 60, allow_nan=False)
LENGTH = st.floats(0, 10, allow_nan=False)
SPAN = st.tuples(st.sampled_from(["evaluation", "checkpoint", "publishing"]), TIME, LENGTH)


@st.composite
def histories(draw: st.DrawFn) -> tuple[Run, list[Attempt], list[Event], dict, float, bool]:
    """Attempts that end in any way, with ranks that tell what they like, also nonsense."""
    world = draw(st.integers(1, 3))
    attempts, events, tracks = [], [], {}
    clock = draw(st.floats(0, 2))
    for number in range(1, draw(st.integers(0, 4)) + 1):
        start, clock = clock, clock + draw(LENGTH)
        how = draw(st.sampled_from(["died", "hung", "stopped", "interrupted", "open", "failed"]))
        row = attempt(number, start, None if how == "open" else clock, how)
        attempts.append(replace(row, cause=None) if how == "open" else row)
        at = draw(TIME)
        if how == "died":
            events.append(event("rank.died", at, number, seen_at=EPOCH + draw(TIME)))
        if how == "hung":
            silent = [{"rank": r, "seconds": draw(LENGTH)} for r in range(world)]
            events.append(event("rank.hung", at, number, rank=0, seconds=1.0, ranks=silent))
        if how in ("stopped", "failed"):
            events.append(event(f"run.{how}", clock))
        for rank in range(world):
            if draw(st.booleans()):
                step = st.tuples(st.integers(1, 30), TIME, LENGTH, LENGTH)
                one = told(start, *draw(st.lists(step, max_size=6)))
                one.spans += [(k, EPOCH + a, EPOCH + a + n) for k, a, n in draw(st.lists(SPAN))]
                one.inside = draw(st.sampled_from(["", "steps", "evaluation"]))
                one.since, one.looping = EPOCH + draw(TIME), draw(st.booleans())
                tracks[(number, rank)] = one
        clock += draw(LENGTH)
    ended = draw(st.booleans())
    run = run_of(world, clock if ended else None, created=draw(st.floats(-3, 3)))
    return run, attempts, events, tracks, EPOCH + clock, not ended and draw(st.booleans())


@settings(max_examples=150, deadline=None)
@given(histories())
def test_every_second_has_one_class(history) -> None:
    run, attempts, events, tracks, now, alive = history
    found = ledger(run, attempts, events, tracks, now, alive)
    adds_up(found)
    assert set(found.seconds) == set(CLASSES)
    starts = [each.started_at for each in attempts] or [run.created_at]
    over = now if run.ended_at is None else run.ended_at
    wall = max(over, *starts) - min(run.created_at, *starts)
    assert math.isclose(found.wall, wall, abs_tol=1e-6)
    assert all(math.isclose(rank.wall, wall, abs_tol=1e-6) for rank in found.ranks)
