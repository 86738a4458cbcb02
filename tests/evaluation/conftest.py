"""One home with digits and three models, made once and copied for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock.base.settings import load_settings
from penstock.data import prepare, read_manifest, read_split
from penstock.evaluation import Suite, at_least, classification, not_worse
from penstock.jobs.stores import Stores, open_stores
from penstock.registry import package

torch = pytest.importorskip("torch")


def make_digits():
    from sklearn.datasets import load_digits

    found = load_digits()
    return {
        "image": (found.images / 16).astype(np.float32),
        "label": found.target.astype(np.int64),
        "half": np.where(np.arange(len(found.target)) % 2, "odd", "even").astype(object),
        "weight": np.linspace(0, 1, len(found.target)),
        "key": np.array([f"digit-{n}" for n in range(len(found.target))], dtype=object),
    }


def train(images, labels, steps: int, seed: int):
    from torch import nn

    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """digits@1; models good@1, good@2 (other seed), bad@1 (labels shuffled)."""
    home = tmp_path_factory.mktemp("made") / "home"
    with open_stores(load_settings(home.parent, {}, home=home)) as stores:
        version = prepare(stores, "digits", make_digits, key="key").version
        rows = read_split(stores.blobs, read_manifest(stores.blobs, version.digest), "train")
        images = torch.tensor(np.array(rows["image"].to_pylist(), np.float32)).reshape(-1, 8, 8)
        labels = torch.tensor(rows["label"].to_numpy())
        shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
        for name, run, targets, seed in [
            ("good", "a", labels, 1),
            ("good", "b", labels, 2),
            ("bad", "c", shuffled, 3),
        ]:
            model = train(images, targets, 60, seed)
            example = {"image": images[:2], "label": labels[:2]}
            packed = package(model, example, stores.blobs, stores.layout, name=name)
            with stores.meta.write() as meta:
                meta.add_version(
                    "model", name, packed.digest, f"run/{run}", packed.summary, packed.refs
                )
    return home


@pytest.fixture
def stores(made: Path, tmp_path: Path) -> Iterator[Stores]:
    shutil.copytree(made, tmp_path / "home")
    with open_stores(load_settings(tmp_path, {}, home=tmp_path / "home")) as opened:
        yield opened


@pytest.fixture
def suite() -> Suite:
    return Suite(
        "digits",
        data="digits:test",
        metrics=classification(label="label", inputs=["image"]),
        slices=["label"],
        gates=[at_least("accuracy", 0.9), not_worse("accuracy", margin=0.05)],
    )
