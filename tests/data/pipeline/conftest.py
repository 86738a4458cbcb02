"""Datasets to load, and functions that workers import by their names."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.base.layout import Layout
from penstock.blobs import Blobs, open_blobs
from penstock.data import Loader, Manifest

ROWS = 61


class Home:
    """A dataset of ROWS rows whose sample i knows it."""

    def __init__(self, folder: Path, make: Any) -> None:
        self.blobs: Blobs = open_blobs(f"file://{folder}/blobs")
        self.layout = Layout(folder)
        self.data: Manifest = make(self.blobs, rows=ROWS, shard_rows=17)

    def loader(self, **options: Any) -> Loader:
        options = {"batch_size": 6} | options
        return Loader(self.blobs, self.layout, self.data, "all", **options)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, make: Any) -> Home:
    return Home(tmp_path_factory.mktemp("home"), make)


def noisy(sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return {"id": sample["id"], "noise": rng.random(2), "name": sample["name"]}


def fails_at_17(sample: dict[str, Any]) -> dict[str, Any]:
    if sample["id"] == 17:
        raise ValueError("seventeen")
    return sample


def dies_once_at_17(sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """SIGKILLs its process the first time that it sees sample 17."""
    mark = Path(os.environ["PENSTOCK_TEST_MARK"])
    if sample["id"] == 17 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return noisy(sample, rng)


def dies_at_17(sample: dict[str, Any]) -> dict[str, Any]:
    if sample["id"] == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    return sample


def hangs(sample: dict[str, Any]) -> dict[str, Any]:
    time.sleep(3600)
    return sample


def all_kinds(samples: list[dict[str, Any]]) -> dict[str, Any]:
    ids = [int(sample["id"]) for sample in samples]
    return {
        "array": np.array(ids),
        "nested": {"pair": (np.array(ids) + 1, ids), "none": None},
        "bytes": [bytes([i]) * i for i in ids],
        "text": [f"{i}" for i in ids],
    }
