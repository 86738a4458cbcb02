"""What somebody who watches a run is told of its moment."""

from __future__ import annotations

import pytest
from tests.monitoring.test_ledger import EPOCH, attempt, told

from penstock.monitoring import Told, Tracks, live
from penstock.signals import Emitter


def test_step_pace_and_time_left_are_those_of_the_slowest_rank() -> None:
    fast = told(0, *((n, n * 0.5, 0.5, 0.1) for n in range(1, 9)))
    slow = told(0, *((n, n * 1.0, 1.0, 0.1) for n in range(1, 5)))
    fast.inside = slow.inside = "steps"
    tracks = {(1, 0): fast, (1, 1): slow}
    now = live(28, [attempt(1, 0, None)], [], [], tracks, EPOCH + 4.5, alive=True)
    assert (now.step, now.steps, now.attempt) == (8, 28, 1)
    assert now.pace == pytest.approx(1.0)
    assert now.eta == pytest.approx(20.0)
    assert [(each.rank, each.step, each.behind, each.phase) for each in now.ranks] == [
        (0, 8, 0, "step"),
        (1, 4, 4, "step"),
    ]
    assert [each.seconds for each in now.ranks] == pytest.approx([0.5, 0.5])
    over = live(28, [attempt(1, 0, 5)], [], [], tracks, EPOCH + 9, alive=False)
    assert over.pace is None and over.eta is None


def test_ranks_are_those_of_the_newest_attempt() -> None:
    old = {(1, 0): told(0, (1, 1, 1, 0)), (1, 1): told(0, (1, 1, 1, 0))}
    rows = [attempt(1, 0, 3), attempt(2, 3, None)]
    assert live(None, rows, [], [], old, EPOCH + 4, alive=True).ranks == []
    (rank,) = live(None, rows, [], [], old | {(2, 0): Told(EPOCH + 3)}, EPOCH + 4, True).ranks
    assert (rank.phase, rank.step, rank.seconds) == ("starting", None, 1.0)


def test_tracks_read_only_what_is_new_and_scalars_that_came_again_replace_the_old(tmp_path):
    first = Emitter(tmp_path, "r", 0, 1)
    first.scalars(1, {"loss": 3.0, "penstock/step_seconds": 0.5, "penstock/data_seconds": 0.1})
    tracks = Tracks(tmp_path)
    assert list(tracks.look()[(1, 0)].steps) == [1]
    first.scalars(2, {"loss": 2.0, "penstock/step_seconds": 0.5, "penstock/data_seconds": 0.2})
    first.text(2, "penstock/began", "penstock/evaluation")
    found = tracks.look()[(1, 0)]
    assert (list(found.steps), list(found.data)) == ([1, 2], [0.1, 0.2])
    assert found.inside == "evaluation"
    first.span("penstock/evaluation", 1.0, 2.0, 2)
    second = Emitter(tmp_path, "r", 0, 2)
    second.scalar(2, "loss", 2.5)
    again = tracks.look()
    assert again[(1, 0)].spans == [("evaluation", 1.0, 2.0)]
    now = live(None, [attempt(2, 0, None)], [], [], again, EPOCH, alive=True)
    assert now.series == {"loss": [(1, 3.0), (2, 2.5)]}
    first.close()
    second.close()
    assert str(tracks.look()) == str(Tracks(tmp_path).look())
