"""What a script says of its training: one line per event that a person wants to know."""

from __future__ import annotations

from typing import Any

from penstock.records import Event, Run
from penstock.training.follow import lines_of, tell_skipped


def told(kind: str, **body: Any) -> list[str]:
    return lines_of(Event(1, 0.0, "run/r", kind, body))


def test_a_function_that_raised_is_not_tried_again_without_a_word() -> None:
    said = told(
        "attempt.ended",
        attempt=1,
        cause="rank 0 raised at step 50",
        to_step=49,
        raised="OSError: flaky",
    )
    assert said == ["rank 0 raised at step 50: OSError: flaky; trying again"]
    assert told("attempt.ended", attempt=1, cause="rank 1 died by SIGKILL", to_step=3) == []


def test_how_a_rank_died_is_said_as_far_as_anybody_knows() -> None:
    assert told("rank.died", rank=1, pid=7, signal="SIGKILL", code=None) == [
        "rank 1 (pid 7) died by SIGKILL"
    ]
    assert told("rank.died", rank=1, pid=7, signal=None, code=3) == [
        "rank 1 (pid 7) died by exit code 3"
    ]
    assert told("rank.died", rank=1, pid=7, signal=None, code=None) == [
        "rank 1 (pid 7) died by the death of its image"
    ]
    assert told("rank.died", rank=1, pid=7, signal="SIGKILL", code=None, oom=True) == [
        "rank 1 (pid 7) died by the kernel, which was out of memory"
    ]


def test_it_is_said_to_where_a_run_goes_back_and_what_it_leaves_out() -> None:
    assert told("window.left-out", after=30, first=34, until=38) == [
        "unhealthy gradients since step 34: going back to step 30, and leaving out steps 31 to 38"
    ]
    (line,) = told("window.left-out", after=0, first=4, until=8)
    assert "going back to the beginning, and leaving out steps 1 to 8" in line


def test_a_hang_is_said_with_rank_line_and_who_waits() -> None:
    body = {"rank": 1, "step": 120, "seconds": 31.4, "state": "sleeping", "waits": False}
    assert told("rank.hung", **body, where="train.py:12 in fit", waiting=[0, 2]) == [
        "rank 1 hangs at step 120 (train.py:12 in fit), no sign of life for 31 s; "
        "it keeps waiting: rank 0, rank 2"
    ]
    (line,) = told("rank.hung", **{**body, "waits": True}, where="train.py:9 in fit", waiting=[0])
    assert line.endswith("for 31 s; it waits for the others, and they for it: rank 0")
    assert told("rank.hung", **{**body, "state": "stopped by SIGSTOP"}, where=None, waiting=[]) == [
        "rank 1 hangs at step 120 (stopped by SIGSTOP), no sign of life for 31 s"
    ]


def test_skipped_steps_are_said_at_the_end() -> None:
    said: list[str] = []
    run = Run("run-a", "base", "train", "finished", {}, result={"steps": 126, "skipped": 126})
    tell_skipped(run, said.append)
    assert said == ["126 of 126 steps were not taken: their gradients were unhealthy"]
    tell_skipped(Run("run-b", "b", "train", "finished", {}, result={"steps": 9}), said.append)
    assert len(said) == 1
