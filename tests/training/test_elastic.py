"""A number of ranks that changes while a run goes on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.training.conftest import Project

from penstock.base.errors import BadInput, Conflict
from penstock.jobs import control
from penstock.training import elastic
from penstock.training.elastic import Sizes

# pure


@given(st.integers(1, 9), st.integers(0, 9), st.integers(1, 48), st.booleans(), st.data())
def test_every_size_that_is_taken_fits(
    low: int, more: int, parts: int, ordered: bool, data: st.DataObject
) -> None:
    sizes = Sizes(low, low + more, parts, ordered)
    now, wanted = data.draw(st.integers(low, low + more)), data.draw(st.integers(1, 20))
    found = sizes.next(now, wanted, failures=data.draw(st.integers(0, 9)))
    if sizes.at_most(sizes.high) is None:
        assert found == now  # nothing fits: the loop says so
    else:
        assert sizes.fits(found) and parts % found == 0
        assert not ordered or found & (found - 1) == 0


def test_the_largest_that_fits_and_is_not_more_than_asked_for_is_taken() -> None:
    sizes = Sizes(1, 8, parts=12)
    assert [sizes.next(8, wanted) for wanted in (None, 8, 5, 1)] == [6, 6, 4, 1]
    assert Sizes(1, 8, 8, ordered=True).next(8, 7) == 4
    assert Sizes(3, 8).next(8, None) == 8  # the loop has not said V yet


def test_failures_in_a_row_take_a_rank_less_from_time_to_time() -> None:
    sizes = Sizes(1, 4, parts=4)
    assert [sizes.next(4, None, failures) for failures in (0, 1, 2, 3, 4)] == [4, 4, 2, 4, 2]
    assert sizes.next(1, None, failures=2) == 1


@pytest.mark.parametrize("workers", [(0, 2), (3, 2), (1, 2, 3), (1, "2")])
def test_what_is_no_range_is_refused(workers: Any) -> None:
    with pytest.raises(BadInput):
        elastic.read(workers)


# real

ELASTIC = (
    ("torch.nn.BatchNorm1d(32), ", ""),
    ("workers=int(workers)", "workers=eval(workers)"),
    ("run.steps(train)", "run.steps(train, micro_batches=4, reduction='ordered')"),
)


@pytest.mark.torch
@pytest.mark.faults
def test_a_run_shrinks_and_grows_on_request_and_no_bit_of_its_weights_changes(
    project: Project,
) -> None:
    project.edit(*ELASTIC, ("pause: float = 0.01", "pause: float = 0.05"))
    script = project.start("run", "(1, 2)")
    for size, step in ((1, 10), (2, 30)):
        project.until(f"step {step}", lambda at=step: project.committed("run") >= at)
        run = project.newest("run")
        assert run is not None
        with project.stores() as stores:
            control.resize(stores, run.id, size)
        project.until(
            "the other size", lambda to=size: project.newest("run").spec["world_size"] == to
        )
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    assert "1 rank instead of 2" in out and "2 ranks instead of 1" in out
    started = project.events("run", "attempt.started")
    assert [body["world_size"] for body in started] == [2, 1, 2]
    ended = project.events("run", "attempt.ended")
    causes = ["resized to 1 rank", "resized to 2 ranks", "finished"]
    assert [body["cause"] for body in ended] == causes
    for before, after in zip(ended, started[1:], strict=False):  # nothing was computed twice
        assert after["from_step"] == before["to_step"]
    project.edit(("pause: float = 0.05", "pause: float = 0.0"))
    project.run("fixed", "1")
    run, fixed = project.newest("run"), project.newest("fixed")
    assert run is not None and fixed is not None
    assert run.result["weights"] == fixed.result["weights"]


@pytest.mark.torch
@pytest.mark.faults
@pytest.mark.long
def test_a_rank_that_always_dies_costs_its_place_and_not_the_run(project: Project) -> None:
    project.edit(
        *ELASTIC,
        (
            "time.sleep(config.pause)",
            "import os, signal; time.sleep(config.pause); "
            "run.rank == 1 and run.global_step == 23 and os.kill(os.getpid(), signal.SIGKILL)",
        ),
    )
    out = project.run("run", "(1, 2)")
    assert "1 rank instead of 2 after 2 failures" in out
    sizes = [body["world_size"] for body in project.events("run", "attempt.started")]
    assert sizes == [2, 2, 1]
    run = project.newest("run")
    assert run is not None and run.state == "finished" and run.step == 80


@pytest.mark.torch
@pytest.mark.long
def test_a_size_that_cannot_share_the_micro_batches_is_passed_over(project: Project) -> None:
    """3 ranks do not share 4 parts; nothing is lost by having tried. Also: what may not be."""
    project.edit(*ELASTIC)
    project.run("run", "(1, 3)")
    sizes = [body["world_size"] for body in project.events("run", "attempt.started")]
    assert sizes == [3, 2]
    run = project.newest("run")
    assert run is not None and run.state == "finished"
    with project.stores() as stores, pytest.raises(Conflict):
        control.resize(stores, run.id, 2)


@pytest.mark.torch
def test_only_a_run_with_a_range_is_resized(project: Project) -> None:
    project.run("run", "1")
    run = project.newest("run")
    assert run is not None
    with project.stores() as stores:
        with stores.meta.write() as tx:
            tx.change_run(run.id, state="stopped")
        with pytest.raises(BadInput, match="fixed number"):
            control.resize(stores, run.id, 2)
