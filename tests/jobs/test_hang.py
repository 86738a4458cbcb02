"""When a gang counts as hung, and by whom: pure decisions, over step times as they come."""

import os
import signal
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base import process
from penstock.base.settings import Settings
from penstock.jobs import orders, stacks, words
from penstock.jobs import pulse as pulse_module
from penstock.jobs.agent.hangs import HangWatch
from penstock.jobs.budgets import Budget
from penstock.jobs.decide import Starting
from penstock.jobs.hang import (
    PATIENCE,
    STEPPING,
    TIMES,
    Beat,
    Look,
    accused,
    allowed,
    late,
    waiting,
)
from penstock.jobs.pulse import Pulse
from penstock.jobs.words import CHECKPOINT, COMPUTE, EVALUATE, Words

FLOOR = 30.0


@contextmanager
def told_time(now):
    """Pulses read the time from `now[0]`, in nanoseconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pulse_module, "time", SimpleNamespace(monotonic_ns=lambda: now[0]))
        yield


ONE = Beat(1, 10, "compute", FLOOR + 1)


def test_a_gang_hangs_when_all_ranks_that_are_behind_are_late():
    ahead = Beat(0, 11, "checkpoint", 5.0)
    assert late([ahead, ONE], FLOOR) == (ONE,)
    assert late([replace(ONE, rank=0), ONE], FLOOR) == (replace(ONE, rank=0), ONE)
    assert late([], FLOOR) == ()


def test_one_that_is_as_far_and_not_late_may_be_what_the_others_wait_for():
    for busy in (Beat(0, 10, "checkpoint", 900.0), Beat(0, 10, "compute", 1.0)):
        assert late([busy, ONE], FLOOR) == ()


def test_one_that_is_behind_and_busy_keeps_the_others_waiting_with_good_reason():
    assert late([Beat(0, 9, "evaluate", 900.0), ONE], FLOOR) == ()


@pytest.mark.parametrize("phase", sorted(set(words.PHASES) - set(STEPPING)))
def test_what_is_no_step_has_a_patience_of_its_own(phase):
    assert late([Beat(0, 0, phase, PATIENCE)], FLOOR) == ()
    assert late([Beat(0, 0, phase, PATIENCE + 1)], FLOOR)
    slow = Beat(0, 0, phase, PATIENCE + 1, {phase: PATIENCE})  # it took that long before
    assert late([slow], FLOOR) == ()
    assert allowed(phase, [slow], 2 * TIMES * PATIENCE) == 2 * TIMES * PATIENCE


def test_long_steps_of_any_rank_are_a_measure_for_all_and_slow_evaluations_are_none():
    slow = Beat(0, 10, "data", 0.0, {"compute": 20.0, "evaluate": 500.0})
    assert allowed("compute", [slow, ONE], FLOOR) == 20.0 * TIMES
    assert allowed("data", [slow, ONE], FLOOR) == 20.0 * TIMES
    assert late([slow, replace(ONE, step=9)], FLOOR) == ()


spans = st.lists(
    st.tuples(st.sampled_from(words.PHASES[1:]), st.floats(0.001, FLOOR)), min_size=1, max_size=80
)


@given(spans)
def test_uneven_steps_within_the_floor_raise_no_alarm(stretches):
    page, now = Words.create(1), [1_000_000_000]
    with told_time(now):
        pulse = Pulse(page, 0)
        for name, seconds in stretches:
            pulse.beat(words.PHASES.index(name))
            now[0] += int(seconds * 1e9)
            phase, at = page.mark(0)
            age = (now[0] - at) / 1e9
            beat = Beat(0, 1, words.PHASES[phase], age - 1e-3, page.longest(0))
            assert words.PHASES[phase] == name and abs(age - seconds) < 1e-3
            assert late([beat], FLOOR) == ()
    page.close()


@given(st.lists(st.floats(1.0, 100.0), min_size=1, max_size=50), st.floats(0.1, TIMES * 0.9))
def test_a_step_some_times_as_long_as_the_longest_raises_no_alarm(steps, times):
    """However small the floor; and the same step, one that never ends, is seen."""
    page, now = Words.create(1), [0]
    with told_time(now):
        pulse = Pulse(page, 0)
        pulse.step_done()
        for seconds in [*steps, max(steps) * times]:
            pulse.enter(COMPUTE)
            now[0] += int(seconds * 1e9)
            age = (now[0] - page.mark(0)[1]) / 1e9
            before = Beat(0, 1, "compute", age, {"compute": max(steps)})
            assert late([before], 1.0) == ()
            pulse.step_done()
        longest = page.longest(0)
        assert longest["compute"] >= 0.9 * max(steps)  # not forgotten within a few steps
        assert late([Beat(0, 1, "compute", TIMES * longest["compute"] * 1.01, longest)], 1.0)
    page.close()


def test_the_time_before_the_first_step_is_complete_is_no_measure_of_a_step():
    page, now = Words.create(2), [1_000_000_000]
    with told_time(now):
        pulse = Pulse(page, 1)
        pulse.enter(COMPUTE)  # the first batch is there
        assert page.mark(1)[0] == words.STARTING
        with pulse.during(EVALUATE):  # before the loop
            assert page.mark(1)[0] == EVALUATE
        now[0] += 500_000_000_000
        pulse.step_done()
        assert page.mark(1)[0] == words.DATA
        assert page.longest(1)["compute"] == page.longest(1)["data"] == 0.0
        with pulse.during(CHECKPOINT):
            now[0] += 7_000_000_000
        assert page.mark(1)[0] == words.DATA
        assert page.longest(1)["checkpoint"] == 7.0
        pulse.over()
        assert page.mark(1)[0] == words.AFTER
    assert page.mark(0) == (words.STARTING, 0)
    assert page.steps() == [0, 0]  # nothing landed on a step
    page.close()


def test_where_nobody_watches_a_pulse_does_nothing():
    pulse = Pulse()
    pulse.step_done()
    with pulse.during(CHECKPOINT):
        pulse.enter(COMPUTE)
    pulse.over()


# -- who it is ----------------------------------------------------------------------------------

WAITER = Look(0, 10, "compute", 31.0, "sleeping", "train.py:9 in fit", "backward", waits=True)
LOOPER = Look(1, 10, "compute", 31.0, "running", "train.py:7 in fit")


def test_the_one_behind_is_named_then_the_one_that_waits_for_nobody():
    assert accused([WAITER, LOOPER]) == LOOPER
    behind = replace(WAITER, rank=2, step=9)
    assert accused([WAITER, LOOPER, behind]) == behind
    stopped = replace(LOOPER, rank=3, state="stopped by SIGSTOP", where=None)
    assert accused([WAITER, LOOPER, stopped]) == stopped
    assert accused([WAITER, replace(WAITER, rank=1)]) == WAITER  # all wait: the first
    assert waiting([WAITER, LOOPER, replace(LOOPER, rank=2, step=11)], LOOPER) == [0, 2]


TEXT = """Thread 0x00007f0000000002 (most recent call first):
  File "/usr/lib/python3/threading.py", line 327 in wait

Current thread 0x00007f0000000001 (most recent call first):
  File "/venv/torch/distributed/distributed_c10d.py", line 2345 in all_reduce
  File "/cache/ab/pkg/net.py", line 12 in forward
  File "/venv/torch/nn/parallel/distributed.py", line 9 in forward
  File "/cache/ab/train.py", line 40 in fit
  File "/src/penstock/training/rank.py", line 85 in _call
"""


def test_the_innermost_line_of_the_project_is_found_in_a_stack():
    frames = stacks.main_thread(TEXT)
    at = stacks.innermost(frames, ["/cache/ab"])
    assert (
        at == 1 and stacks.named(frames[at], ["/cache", "/cache/ab"]) == "pkg/net.py:12 in forward"
    )
    assert stacks.waits(frames[:at]) and not stacks.waits(frames[1:])
    assert stacks.waits(frames[2:3])  # it is innermost: an exchange of buffers
    assert stacks.innermost(frames, ["/elsewhere"]) is None
    assert stacks.named(frames[0]) == "distributed/distributed_c10d.py:2345 in all_reduce"
    assert stacks.main_thread("") == []
    first, _, _ = TEXT.partition("Current")
    assert [each.line for each in stacks.main_thread(first)] == [327]


@pytest.mark.parametrize(
    "setting, shape, hangs, seconds",
    [
        (300.0, "gang", 0, 300.0),
        (300.0, "gang", 2, 1200.0),  # what was only slow gets through
        ("off", "gang", 0, None),
        (300.0, "map", 0, None),
    ],
)
def test_each_hang_doubles_the_patience_of_the_next_attempt(setting, shape, hangs, seconds):
    state = Starting(1, Budget(hang=hangs))
    assert orders.hang_seconds(Settings(hang_seconds=setting), shape, state) == seconds


# -- the agent's eye ----------------------------------------------------------------------------


class Gang:
    """One rank, this process, and a clock that is told the time; it never answers for stacks."""

    def __init__(self, tmp_path, floor=5.0):
        self.now = [0]
        self.page = Words.create(1)
        file = tmp_path / "rank-0.stacks"
        self.child = SimpleNamespace(
            pid=os.getpid(), dead=False, told_end=False, stacks=file, folders=[]
        )
        self.watch = HangWatch(self.page, {0: self.child}, floor, lambda: self.now[0])
        self.page.set_mark(0, COMPUTE, 0)

    def look_for(self, seconds, every=0.25):
        """Whether a hang was found within so many seconds."""
        found = False
        for _ in range(int(seconds / every)):
            self.now[0] += int(every * 1e9)
            found = self.watch.look() or found
        return found


def test_a_silent_rank_is_told_once(tmp_path):
    gang = Gang(tmp_path)
    assert not gang.look_for(5.0)
    assert gang.look_for(3.0)
    assert gang.watch.account["rank"] == 0 and gang.watch.account["waiting"] == []
    assert not gang.look_for(60.0)


def test_a_rank_that_goes_on_while_stacks_are_taken_did_not_hang(tmp_path):
    gang = Gang(tmp_path)
    assert not gang.look_for(5.25)  # the last look found it late
    gang.page.set_mark(0, COMPUTE, gang.now[0])
    assert not gang.look_for(4.5)
    assert gang.watch.account is None


def test_ranks_that_took_their_leave_are_not_watched(tmp_path):
    gang = Gang(tmp_path)
    gang.child.told_end = True
    assert not gang.look_for(60.0)


def test_a_debugger_switches_it_off_and_the_time_begins_anew_when_it_is_gone(tmp_path, monkeypatch):
    gang = Gang(tmp_path)
    told = {"State": "t (tracing stop)", "TracerPid": "77"}
    with monkeypatch.context() as patch:
        patch.setattr(process, "status", lambda _: told)
        assert not gang.look_for(600.0)
    assert not gang.look_for(4.75)
    assert gang.look_for(4.0)


def test_a_machine_that_slept_is_no_hang(tmp_path):
    gang = Gang(tmp_path)
    assert not gang.look_for(4.0)
    gang.now[0] += 3600 * 10**9
    assert not gang.look_for(4.75)
    assert gang.look_for(4.0)


def test_a_rank_without_a_handler_is_not_sent_the_signal_which_would_end_it():
    told = process.status(os.getpid())
    assert not process.handles(told, stacks.SIGNAL)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    assert process.handles(process.status(os.getpid()), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
    assert process.status(2**22 + 1) == {} and not process.handles({}, 10)
