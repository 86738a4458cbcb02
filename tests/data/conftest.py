"""Datasets to read, homes to prepare in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.base.layout import Layout
from penstock.base.settings import load_settings
from penstock.blobs import Blobs, open_blobs
from penstock.data.manifest import Lineage, Manifest, write_manifest
from penstock.data.shards import write_shards
from penstock.jobs.stores import Stores, open_stores

Make = Callable[..., Manifest]


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return open_blobs(f"file://{tmp_path}/blobs")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with open_stores(load_settings(folder=tmp_path, home=tmp_path / "home")) as opened:
        yield opened


@pytest.fixture(scope="session")
def make() -> Make:
    """`make(blobs, rows=…, shard_rows=…)`: a dataset of one split "all" whose sample i knows it."""

    def run(blobs: Blobs, given: Any = None, *, rows: int = 100, **options: Any) -> Manifest:
        options = {"key": "id", "splits": {"all": 1.0}} | options
        written = write_shards(blobs, numbered(rows) if given is None else given, **options)
        return write_manifest(
            blobs,
            columns=written.columns,
            key=written.key,
            splits=written.splits,
            shards=written.shards,
            statistics=written.statistics,
            lineage=Lineage("tests:make", "code"),
            checks=written.checks,
            tables=written.tables,
        )

    return run


def numbered(rows: int) -> dict[str, Any]:
    ids = np.arange(rows)
    return {
        "id": ids,
        "image": (ids[:, None, None] + np.zeros((1, 2, 3))).astype(np.float32),
        "odd": ids % 2 == 1,
        "mask": (ids[:, None] >> np.arange(4) & 1).astype(bool),
        "name": np.array([f"n{i}" for i in ids]),
    }


@pytest.fixture
def digits() -> dict[str, Any]:
    """scikit-learn's handwritten digits: image float64 [1797, 8, 8], label int64 [1797]."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return {"image": found.images, "label": found.target}


@pytest.fixture
def damage(blobs: Blobs) -> Callable[[str], None]:
    """`damage(digest)`: flip one bit in the middle of a blob, as a failing disk does."""

    def run(digest: str) -> None:
        path = blobs.path(digest)
        assert path is not None
        flip(path)

    return run


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
