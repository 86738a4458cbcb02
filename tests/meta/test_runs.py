"""Runs, attempts, checkpoints."""

from __future__ import annotations

import math

import pytest

from penstock.base.clock import ManualClock
from penstock.base.errors import BadInput, Conflict, NotFound
from penstock.base.hashing import digest_bytes
from penstock.meta import Meta
from penstock.records import Attempt, Checkpoint, Run

A, B, C, D = (digest_bytes(bytes([n])) for n in range(4))


def _add(meta: Meta, *runs: Run) -> None:
    with meta.write() as writer:
        for run in runs:
            writer.add_run(run)


def _run(run_id: str, name: str, work: str = "train", state: str = "running") -> Run:
    return Run(run_id, name, work, state, {})  # type: ignore[arg-type]


def test_a_run_comes_back_as_it_was_added(meta: Meta) -> None:
    run = Run(
        id="run-9",
        name="team/base",
        work="train",
        state="pending",
        spec={"config": {"lr": 1e-3, "width": [1, 2]}, "text": "ü"},
        code=A,
        source=B,
        data={"digits": "digits@1"},
        detached=True,
        step=3,
        created_at=5.0,
        result={"model": None},
    )
    _add(meta, run)
    with meta.read() as reader:
        assert reader.find_run("run-9") == run
        assert reader.find_run("run-8") is None


def test_a_run_without_a_time_gets_the_stores(meta: Meta, clock: ManualClock) -> None:
    clock.advance(17)
    _add(meta, _run("run-1", "base"))
    with meta.read() as reader:
        assert reader.get_run("run-1").created_at == clock.wall() == reader.now()


def test_the_same_id_twice_conflicts(meta: Meta) -> None:
    _add(meta, _run("run-1", "base"))
    with pytest.raises(Conflict):
        _add(meta, _run("run-1", "other"))
    with meta.read() as reader:
        assert reader.get_run("run-1").name == "base"


def test_a_run_is_found_by_id_by_name_and_by_the_start_of_its_id(meta: Meta) -> None:
    _add(meta, _run("run-a1", "base"), _run("run-a2", "base"), _run("run-b1", "other"))
    with meta.read() as reader:
        assert reader.get_run("run-a1").id == "run-a1"
        assert reader.get_run("base").id == "run-a2"
        assert reader.get_run("run-b").id == "run-b1"
        with pytest.raises(BadInput, match="several"):
            reader.get_run("run-a")


@pytest.mark.parametrize("asked", ["bose", "", "run-%", "run_"])
def test_an_unknown_run_is_not_found(meta: Meta, asked: str) -> None:
    _add(meta, _run("run-1", "base"))
    with meta.read() as reader, pytest.raises(NotFound) as caught:
        reader.get_run(asked)
    assert "base" in caught.value.fix


def test_the_newest_run_of_a_name_may_be_of_one_work(meta: Meta) -> None:
    _add(meta, _run("run-1", "x", "train"), _run("run-2", "x", "evaluate"))
    with meta.read() as reader:
        assert reader.newest_run("x").id == "run-2"  # type: ignore[union-attr]
        assert reader.newest_run("x", "train").id == "run-1"  # type: ignore[union-attr]
        assert reader.newest_run("x", "prepare") is None


def test_runs_are_listed_newest_first_by_name_and_state(meta: Meta) -> None:
    _add(meta, _run("run-1", "a"), _run("run-2", "b", state="failed"), _run("run-3", "a"))
    with meta.read() as reader:
        assert [run.id for run in reader.runs()] == ["run-3", "run-2", "run-1"]
        assert [run.id for run in reader.runs(limit=1)] == ["run-3"]
        assert [run.id for run in reader.runs(name="a")] == ["run-3", "run-1"]
        assert [run.id for run in reader.runs(states=["failed"])] == ["run-2"]
        assert reader.runs(states=[]) == []


def test_fields_of_a_run_change(meta: Meta, run: Run) -> None:
    with meta.write() as writer:
        changed = writer.change_run(run.id, state="failed", step=7, error={"code": "x"})
        assert changed == writer.find_run(run.id)
    assert (changed.state, changed.step, changed.error) == ("failed", 7, {"code": "x"})
    with meta.write() as writer:
        assert writer.change_run(run.id, error=None).error is None


def test_a_field_that_a_run_has_not_is_refused_with_the_nearest(meta: Meta, run: Run) -> None:
    with pytest.raises(BadInput) as caught, meta.write() as writer:
        writer.change_run(run.id, stat="failed")
    assert '"state"' in caught.value.fix


def test_a_run_that_is_not_there_cannot_change(meta: Meta) -> None:
    with pytest.raises(NotFound), meta.write() as writer:
        writer.change_run("run-0", step=1)


def test_what_is_not_json_is_refused_and_nothing_changes(meta: Meta, run: Run) -> None:
    with pytest.raises(BadInput, match="JSON"), meta.write() as writer:
        writer.event("x", "y")
        writer.change_run(run.id, result={"value": object()})
    with meta.read() as reader:
        assert reader.get_run(run.id).result == {}
        assert reader.last_event() == 0


def test_attempts_come_in_order_and_end_once(meta: Meta, run: Run, clock: ManualClock) -> None:
    second, first = Attempt(run.id, 2, 5, 20.0, 100), Attempt(run.id, 1, 4, 10.0, 0)
    with meta.write() as writer:
        writer.add_attempt(second)
        writer.add_attempt(first)
        writer.end_attempt(run.id, 1, "rank-died", 100, {"rank": 1})
        writer.end_attempt(run.id, 1, "finished", 999, {})
    with meta.read() as reader:
        found = reader.attempts(run.id)
    assert [attempt.number for attempt in found] == [1, 2]
    assert (found[0].cause, found[0].to_step, found[0].detail) == ("rank-died", 100, {"rank": 1})
    assert found[0].ended_at == clock.wall()
    assert found[1] == second


def test_an_attempt_that_began_elsewhere_than_was_thought_says_so(meta: Meta, run: Run) -> None:
    with meta.write() as writer:
        writer.add_attempt(Attempt(run.id, 1, 4, 10.0, 100))
        writer.add_attempt(Attempt(run.id, 2, 5, 20.0, 100))
        writer.began_at(run.id, 2, 80)
    with meta.read() as reader:
        assert [attempt.from_step for attempt in reader.attempts(run.id)] == [100, 80]


def test_the_same_attempt_twice_conflicts(meta: Meta, run: Run) -> None:
    with pytest.raises(Conflict), meta.write() as writer:
        writer.add_attempt(Attempt(run.id, 1, 4, 10.0, 0))
        writer.add_attempt(Attempt(run.id, 1, 5, 11.0, 0))
    with meta.read() as reader:
        assert reader.attempts(run.id) == []


def test_an_attempt_of_no_run_is_refused(meta: Meta) -> None:
    with pytest.raises(Conflict), meta.write() as writer:
        writer.add_attempt(Attempt("run-0", 1, 1, 1.0, 0))


def _checkpoint(run: Run, step: int, digest: str = A, generation: int = 1) -> Checkpoint:
    return Checkpoint(run.id, step, digest, generation, 5.0, 1000, {"loss": 0.5})


def test_checkpoints_come_newest_first_with_the_highest_generation(meta: Meta, run: Run) -> None:
    with meta.write() as writer:
        for step, digest, generation in [(10, A, 1), (20, B, 1), (20, D, 3), (20, C, 2)]:
            writer.add_checkpoint(_checkpoint(run, step, digest, generation), [])
    with meta.read() as reader:
        found = reader.checkpoints(run.id)
    assert found == [_checkpoint(run, 20, D, 3), _checkpoint(run, 10, A, 1)]


def test_a_checkpoint_is_added_once(meta: Meta, run: Run) -> None:
    with meta.write() as writer:
        writer.add_checkpoint(_checkpoint(run, 10, A), [C])
        writer.add_checkpoint(_checkpoint(run, 10, B), [D])
        assert [checkpoint.digest for checkpoint in writer.checkpoints(run.id)] == [A]
        assert writer.referenced([A, B, C, D]) == {A, C}


def test_a_loss_that_is_not_a_number_does_not_stop_a_checkpoint(meta: Meta, run: Run) -> None:
    metrics = {"loss": math.nan, "best": -math.inf}
    with meta.write() as writer:
        writer.add_checkpoint(Checkpoint(run.id, 1, A, 1, 5.0, 1, metrics), [])
    with meta.read() as reader:
        [found] = reader.checkpoints(run.id)
    assert math.isnan(found.metrics["loss"])
    assert found.metrics["best"] == -math.inf


def test_the_mark_of_the_best_moves(meta: Meta, run: Run) -> None:
    with meta.write() as writer:
        for step in (1, 2, 3):
            writer.add_checkpoint(_checkpoint(run, step), [])
        writer.mark_best(run.id, 1, "accuracy")
        writer.mark_best(run.id, 2, "loss")
        writer.mark_best(run.id, 2, "accuracy")
        assert [c.best for c in writer.checkpoints(run.id)] == [None, "accuracy,loss", None]
        writer.mark_best(run.id, 3, "accuracy")
        assert [c.best for c in writer.checkpoints(run.id)] == ["accuracy", "loss", None]


def test_a_checkpoint_that_is_not_there_cannot_be_the_best(meta: Meta, run: Run) -> None:
    with pytest.raises(NotFound), meta.write() as writer:
        writer.mark_best(run.id, 7, "accuracy")


def test_a_dropped_checkpoint_lets_its_blobs_go(meta: Meta, run: Run) -> None:
    with meta.write() as writer:
        writer.add_checkpoint(_checkpoint(run, 1, A, 1), [C])
        writer.add_checkpoint(_checkpoint(run, 1, B, 2), [C])
        writer.add_checkpoint(_checkpoint(run, 2, D, 2), [C])
        writer.mark_best(run.id, 1, "loss")
        writer.drop_checkpoint(run.id, 1)
        writer.drop_checkpoint(run.id, 1)
        assert [c.step for c in writer.checkpoints(run.id)] == [2]
        assert writer.referenced([A, B, C, D]) == {C, D}
        writer.add_checkpoint(_checkpoint(run, 1, A, 3), [])
        assert [c.best for c in writer.checkpoints(run.id)] == [None, None]


def test_a_pin_is_a_row_that_says_why_and_its_changes_are_events(meta: Meta, run: Run) -> None:
    with meta.write() as writer:
        for step in (1, 2):
            writer.add_checkpoint(_checkpoint(run, step), [])
        assert writer.pin_checkpoint(run.id, 1)
        assert not writer.pin_checkpoint(run.id, 1)
        assert writer.pin_checkpoint(run.id, 1, "for the paper")
        assert [c.pinned for c in writer.checkpoints(run.id)] == [None, "for the paper"]
        assert writer.unpin_checkpoint(run.id, 1)
        assert not writer.unpin_checkpoint(run.id, 1)
        assert [c.pinned for c in writer.checkpoints(run.id)] == [None, None]
        told = [(event.kind, event.body) for event in writer.events(subject=f"run/{run.id}")]
    assert told == [
        ("checkpoint.pinned", {"step": 1, "note": ""}),
        ("checkpoint.pinned", {"step": 1, "note": "for the paper"}),
        ("checkpoint.unpinned", {"step": 1}),
    ]


def test_only_a_checkpoint_that_is_there_is_pinned_and_the_pin_goes_with_it(
    meta: Meta, run: Run
) -> None:
    with pytest.raises(NotFound), meta.write() as writer:
        writer.pin_checkpoint(run.id, 7)
    with meta.write() as writer:
        writer.add_checkpoint(_checkpoint(run, 1), [])
        writer.pin_checkpoint(run.id, 1)
        writer.drop_checkpoint(run.id, 1)
        writer.add_checkpoint(_checkpoint(run, 1), [])
        assert [c.pinned for c in writer.checkpoints(run.id)] == [None]
    with pytest.raises(BadInput, match="one line"), meta.write() as writer:
        writer.pin_checkpoint(run.id, 1, "two\nlines")
