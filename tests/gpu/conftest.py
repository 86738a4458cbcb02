"""Scenarios that a GPU is to show. Each takes a device, so that its CPU sister shows in the suite
that the scenario itself works; `make gpu-check` runs those of the GPU and collects their figures.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.training.conftest import Project, made  # noqa: F401

FIGURES = "GPU_CHECK_FIGURES"  # a file that gets a line of JSON for each figure


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """Of a test that is marked with `on`."""
    name: str = request.param
    if name == "cuda":
        import torch

        if not torch.cuda.is_available():
            pytest.skip(f"torch {torch.__version__} sees no CUDA device")
    return name


@pytest.fixture
def figure(device: str) -> Callable[..., None]:
    """`figure("recovery", "kill to next step", 0.4, "s")`: told to whoever collects them."""

    def tell(scenario: str, name: str, value: float, unit: str) -> None:
        row = {"scenario": scenario, "figure": name, "value": value, "unit": unit}
        print(f"{scenario}: {name} = {value:.4g} {unit}")
        if path := os.environ.get(FIGURES):
            with Path(path).open("a") as out:
                out.write(json.dumps({**row, "device": device}) + "\n")

    return tell


@pytest.fixture
def gpu_project(made: Callable[..., Any], device: str) -> Iterator[Project]:  # noqa: F811
    """A training on this device, see `training.SOURCE`."""
    from tests.gpu import training

    project: Project = made(**training.settings(device))
    (project.folder / "train.py").write_text(training.SOURCE)
    yield project
    shutil.rmtree(project.home / "blobs", ignore_errors=True)  # gigabytes, of all tests together
