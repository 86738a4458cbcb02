"""A rank whose parameters went their own way is found and named before it is saved for long."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.training.conftest import PROJECT, Project

from penstock.training.comparing import _fingerprint, diverged

pytestmark = pytest.mark.torch


def test_the_rank_that_is_unlike_most_is_named() -> None:
    names = ["a", "b", "c"]
    assert diverged(names, [[1, 2, 3]] * 3) == {}
    assert diverged(names, [[1, 2, 3], [1, 9, 3], [1, 2, 3]]) == {"b": [1]}
    assert diverged(names, [[7, 2, 3], [1, 2, 3], [1, 2, 4]]) == {"a": [0], "c": [2]}
    assert diverged(names, [[1, 2, 3], [1, 2, 4]]) == {"c": [1]}


def test_of_shards_only_those_that_hold_the_same_are_compared() -> None:
    names, places = ["a", "b"], [[0, 0], [8, 0], [0, 0], [8, 0]]
    assert diverged(names, [[1, 5], [2, 5], [1, 5], [2, 5]], places) == {}
    assert diverged(names, [[1, 5], [2, 5], [1, 5], [3, 6]], places) == {"a": [3], "b": [3]}


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64]
)
def test_one_bit_is_enough(dtype: torch.dtype) -> None:
    values = torch.randn(3, 7).to(dtype)
    before = _fingerprint(values)
    raw = values.view(torch.uint8)
    raw[1, 5] ^= 4
    assert _fingerprint(values) != before
    raw[1, 5] ^= 4
    assert _fingerprint(values) == before
    assert _fingerprint(values.t()) == before


@pytest.mark.faults
@pytest.mark.timeout(120)
def test_a_rank_that_diverges_ends_the_run_with_its_name(tmp_path: Path) -> None:
    source = PROJECT.replace("run.steps(train)", "run.steps(train, compare_every=20)").replace(
        "time.sleep(config.pause)",
        "if run.rank == 1 and run.global_step == 30: net[4].bias.data[0] += 1\n"
        "            time.sleep(config.pause)",
    )
    project = Project(tmp_path / "project", source)
    try:
        out = project.run("run", "3", code=9)
        assert "ranks-diverged" in out and "model.4.bias of rank 1 is not that of the others" in out
        assert "after step 40" in out
        run = project.newest("run")
        assert run is not None and run.state == "failed"
        assert len(project.events("run", "attempt.started")) == 1
    finally:
        project.close()


@pytest.mark.timeout(120)
def test_models_that_were_never_equal_are_found_after_the_first_step(tmp_path: Path) -> None:
    source = PROJECT.replace(
        "model = run.distribute(net)",
        "torch.manual_seed(run.rank)\n        net[0].reset_parameters()\n        model = net",
    )
    project = Project(tmp_path / "project", source)
    try:
        out = project.run("run", "2", code=9)
        assert "model.0.weight of rank 1 is not that of rank 0 after step 1" in out
    finally:
        project.close()
