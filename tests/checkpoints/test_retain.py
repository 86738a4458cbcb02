"""What may be forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock.checkpoints as ck
from penstock.base.errors import BadInput
from penstock.records import Checkpoint


def row(step: int, best: str | None = None, pinned: str | None = None) -> Checkpoint:
    digest = f"sha256:{step:064x}"
    return Checkpoint("run-a", step, digest, 1, 0.0, 1, best=best, pinned=pinned)


def test_the_newest_and_the_best_stay() -> None:
    rows = [row(50), row(40), row(30), row(20, best="val/accuracy"), row(10)]
    assert ck.to_drop(rows, keep_last=2) == [10, 30]


def test_where_a_fork_begins_stays() -> None:
    rows = [row(50), row(40), row(30), row(20)]
    assert ck.to_drop(rows, keep_last=1, origin=20) == [30, 40]


def test_what_is_pinned_stays_with_and_without_a_note() -> None:
    rows = [row(50), row(40, pinned="for the paper"), row(30, pinned=""), row(20)]
    assert ck.to_drop(rows, keep_last=1) == [20]


def test_of_every_n_steps_the_first_stays() -> None:
    at_fixed_steps = [row(step) for step in range(5, 105, 5)]
    left = set(range(5, 105, 5)) - set(ck.to_drop(at_fixed_steps, 1, keep_every=20))
    assert left == {20, 40, 60, 80, 100}
    by_time = [row(step) for step in (3, 17, 23, 31, 44, 59, 90, 97)]
    assert ck.to_drop(by_time, 1, keep_every=20) == [3, 17, 31, 59]


@given(st.sets(st.integers(0, 200)), st.integers(1, 3), st.integers(1, 40))
def test_committing_one_by_one_keeps_what_is_kept_at_once(steps, keep, every) -> None:
    there: list[Checkpoint] = []
    for step in sorted(steps):
        there.append(row(step))
        gone = ck.to_drop(there, keep, keep_every=every)
        there = [each for each in there if each.step not in gone]
    at_once = ck.to_drop([row(step) for step in steps], keep, keep_every=every)
    assert {each.step for each in there} == steps - set(at_once)


def test_keeping_none_is_refused() -> None:
    with pytest.raises(BadInput, match="keep_last=0"):
        ck.to_drop([row(1)], keep_last=0)
    with pytest.raises(BadInput, match="keep_every=0"):
        ck.to_drop([row(1)], keep_last=1, keep_every=0)


@given(
    st.dictionaries(st.integers(0, 50), st.sampled_from([None, "loss"])),
    st.integers(1, 8),
)
def test_never_the_newest_never_the_best_and_at_least_k_stay(marks, keep) -> None:
    rows = [row(step, best) for step, best in marks.items()]
    gone = ck.to_drop(rows, keep)
    assert max(marks, default=None) not in gone
    assert not {step for step, best in marks.items() if best} & set(gone)
    assert len(marks) - len(gone) >= min(keep, len(marks))
    assert ck.to_drop(rows[::-1], keep) == gone == sorted(gone)
