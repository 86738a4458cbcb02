"""Micro-batches: what a part is depends on their number alone, and so may the weights."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.training.conftest import PROJECT, Project

from penstock.base.errors import BadInput
from penstock.signals import read_scalars
from penstock.training.micro import Means, MicroBatches, TreeSum

pytestmark = pytest.mark.torch


def mlp() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(5, 3)


# in one process


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_parts_of_all_ranks_are_the_global_batch_in_order(ranks: int) -> None:
    rows = torch.arange(24).reshape(24, 1)
    names = [f"row {number}" for number in range(24)]
    found, drawn = [], []
    for rank in range(ranks):
        each = 24 // ranks
        own = {
            "x": rows[rank * each : (rank + 1) * each],
            "name": names[rank * each : (rank + 1) * each],
            "epoch": 3,
        }
        micro = MicroBatches(8, "mean", rank, ranks, seed=1)
        lasts = []
        for part in micro.parts(own, 7, []):
            found.append((part["x"].flatten().tolist(), part["name"], part["epoch"]))
            drawn.append((random.random(), float(torch.rand(1))))
            lasts.append(micro.last)
        assert lasts == [False] * (8 // ranks - 1) + [True]
    expected = [list(range(3 * n, 3 * n + 3)) for n in range(8)]
    assert found == [(part, [f"row {i}" for i in part], 3) for part in expected]
    assert len({*drawn}) == 8
    alone = MicroBatches(8, "mean", 0, 1, seed=1)
    assert drawn == [(random.random(), float(torch.rand(1))) for _ in alone.parts(0, 7, [])]


@given(
    st.integers(0, 4).flatmap(
        lambda k: st.lists(st.floats(-1e6, 1e6, width=32), min_size=1 << k, max_size=1 << k)
    )
)
def test_parts_are_summed_in_one_tree(values: list[float]) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    total = TreeSum([parameter])
    for value in values:
        parameter.grad = torch.tensor([value])
        total.add()
        assert parameter.grad is None
    total.finish(len(values), 0, 1)

    def tree(some: list[torch.Tensor]) -> torch.Tensor:
        half = len(some) // 2
        return some[0] if not half else tree(some[:half]) + tree(some[half:])

    assert parameter.grad is not None
    wanted = tree([torch.tensor([value]) for value in values]) / len(values)
    assert torch.equal(parameter.grad, wanted)


def test_a_parameter_that_some_parts_leave_out_has_the_sum_of_the_others() -> None:
    one, never = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    total = TreeSum([one, never])
    for value in (None, 3.0, None, 5.0):
        one.grad = None if value is None else torch.tensor([value])
        total.add()
    total.finish(4, 0, 1)
    assert one.grad is not None and one.grad.item() == 2.0
    assert never.grad is None


def test_scalars_of_several_parts_are_told_once_as_their_mean() -> None:
    means = Means()
    means.add({"loss": torch.tensor(1.0), "early": 4.0})
    means.add({"loss": torch.tensor(3.0)})
    assert means.take(["loss"]) == {"loss": torch.tensor(2.0)}
    assert means.take() == {"early": 4.0} and means.take() == {}


@pytest.mark.parametrize(
    ("count", "reduction", "ranks", "said"),
    [
        (0, "mean", 1, "0 micro-batches cannot be shared"),
        (6, "mean", 4, "6 micro-batches cannot be shared by 4 ranks"),
        (6, "ordered", 2, "powers of two"),
        (6, "ordered", 3, "powers of two"),
        (4, "order", 2, '"order" is none'),
    ],
)
def test_what_cannot_be_shared_is_refused(
    count: int, reduction: Any, ranks: int, said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        MicroBatches(count, reduction, 0, ranks, 0)


def test_rows_that_do_not_divide_are_refused() -> None:
    micro = MicroBatches(4, "mean", 0, 1, 0)
    with pytest.raises(BadInput, match="10 rows of a rank do not divide into 4"):
        next(micro.parts({"x": torch.zeros(10, 2)}, 0, []))


# runs

SOURCE = (
    PROJECT.replace("torch.nn.BatchNorm1d(32), ", "")  # its means are of a rank's own rows
    .replace("run.steps(train)", "run.steps(train, micro_batches=4, reduction=REDUCTION)")
    .replace("def make_points", 'REDUCTION = "ordered"\n\n    def make_points')
    .replace(
        "loss = F",
        "if run.every(20):\n                run.log({'boundary': float(run.global_step + 1)})\n"
        "            loss = F",
    )
)


@pytest.fixture
def ordered(tmp_path: Path) -> Iterator[Callable[[str], Project]]:
    made: list[Project] = []

    def make(name: str) -> Project:
        made.append(Project(tmp_path / name, SOURCE))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.mark.faults
@pytest.mark.timeout(240)
@pytest.mark.long
def test_ordered_weights_are_equal_in_every_bit_at_1_2_and_4_ranks_and_when_they_change(
    ordered: Callable[[str], Project],
) -> None:
    project = ordered("project")
    for name, workers in (("one", "1"), ("two", "2"), ("four", "4")):
        project.run(name, workers)
    weights = {project.newest(name).result["weights"] for name in ("one", "two", "four")}
    assert len(weights) == 1
    script = project.start("moved", "2")
    project.until("a checkpoint", lambda: project.committed("moved") >= 20)
    project.signal(script.pid, signal.SIGINT)
    script.communicate(timeout=60)
    assert 20 <= project.newest("moved").step < 80
    project.run("moved", "4")
    assert {project.newest("moved").result["weights"]} == weights


@pytest.mark.timeout(120)
def test_a_step_of_micro_batches_is_one_step(ordered: Callable[[str], Project]) -> None:
    project = ordered("project")
    project.run("run", "0")
    run = project.newest("run")
    assert run.step == 80 and run.result["steps"] == 80
    [kept] = project.events("run", "signals.kept")
    with project.stores() as stores:
        told = read_scalars(kept["blobs"], stores.blobs).to_pylist()
    boundaries = [(row["step"], row["value"]) for row in told if row["name"] == "boundary"]
    assert boundaries == [(n, float(n)) for n in (20, 40, 60, 80)]
    losses = [row["step"] for row in told if row["name"] == "train/loss"]
    assert losses == list(range(1, 81))
