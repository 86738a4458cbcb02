"""A home of its own for each test, and one package that many tests read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.base.layout import Layout
from penstock.base.settings import load_settings
from penstock.blobs import Blobs, open_blobs
from penstock.jobs.stores import Stores, open_stores
from penstock.registry import Packaged, package

torch = pytest.importorskip("torch")


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with open_stores(load_settings(tmp_path, {}, home=tmp_path / "home")) as opened:
        yield opened


@pytest.fixture(scope="session")
def blobs() -> Blobs:
    return open_blobs("memory://")


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return Layout(tmp_path_factory.mktemp("home"))


def make_net() -> torch.nn.Module:
    """A small network with what differs between training and evaluation: dropout, batch norm."""
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, 8)),
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


@pytest.fixture(scope="session")
def net() -> torch.nn.Module:
    """In training mode, after one batch, so that the statistics of the batch norm are not ones."""
    made = make_net()
    made(torch.rand(16, 8, 8))
    return made


@pytest.fixture(scope="session")
def published(net: torch.nn.Module, blobs: Blobs, layout: Layout) -> Packaged:
    example = {"image": torch.rand(3, 8, 8), "label": torch.tensor([1, 2, 3]), "key": ["a"] * 3}
    return package(net, example, blobs, layout, name="digits-cnn", lineage={"run": "run-1"})
