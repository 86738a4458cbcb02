"""Datasets to read, homes to prepare in, and deaths at a chosen line."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
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
def chance() -> random.Random:
    seed = int(os.environ.get("PENSTOCK_CHAOS_SEED", random.randrange(1 << 30)))
    print(f"PENSTOCK_CHAOS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def die_at_line() -> Callable[[str, int, Callable[[], object]], int]:
    """`die_at_line(part, n, work)`: SIGKILL a forked child before the n-th line in files whose
    path holds `part`; returns the child's wait status (0: it got through)."""

    def run(part: str, n: int, work: Callable[[], object]) -> int:
        child = os.fork()
        if child == 0:
            _trace(part, n)
            try:
                work()
                sys.settrace(None)
                os._exit(0)
            finally:
                os._exit(70)
        return os.waitpid(child, 0)[1]

    return run


def _trace(part: str, n: int) -> None:
    left = n

    def on_line(_frame: object, event: str, _argument: object) -> object:
        nonlocal left
        if event == "line":
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def on_call(frame: Any, _event: str, _argument: object) -> object:
        return on_line if part in frame.f_code.co_filename else None

    sys.settrace(on_call)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB of its own."""
    if os.getuid() != 0:
        assert "CI" not in os.environ, "CI must run as root, or this fault goes untested"
        pytest.skip("needs root to mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


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
