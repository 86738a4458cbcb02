"""What may be forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock.checkpoints as ck
from penstock.base.errors import BadInput
from penstock.records import Checkpoint


def row(step: int, best: str | None = None) -> Checkpoint:
    return Checkpoint("run-a", step, f"sha256:{step:064x}", 1, 0.0, 1, best=best)


def test_the_newest_and_the_best_stay() -> None:
    rows = [row(50), row(40), row(30), row(20, best="val/accuracy"), row(10)]
    assert ck.to_drop(rows, keep_last=2) == [10, 30]


def test_where_a_fork_begins_stays() -> None:
    rows = [row(50), row(40), row(30), row(20)]
    assert ck.to_drop(rows, keep_last=1, origin=20) == [30, 40]


def test_keeping_none_is_refused() -> None:
    with pytest.raises(BadInput, match="keep_last=0"):
        ck.to_drop([row(1)], keep_last=0)


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
