"""A home whose blobs are in an object store: prepared, read, collected; nothing beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock as ps
from penstock.base.settings import load_settings
from penstock.data import Loader, read_manifest
from penstock.home.gc import collect_garbage
from penstock.jobs.stores import Stores, open_stores

pytestmark = [pytest.mark.s3, pytest.mark.timeout(180)]
SPLITS = {"train": 0.8, "test": 0.2}


def rows() -> Iterator[dict[str, Any]]:
    random = np.random.default_rng(3)
    for n in range(400):
        yield {"id": f"row-{n}", "x": random.random(64, dtype="float32"), "label": n % 3}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: str) -> Path:
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PENSTOCK_BLOBS", s3)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def stores(home: Path) -> Iterator[Stores]:
    with open_stores(load_settings()) as opened:
        yield opened


def loader(stores: Stores, reference: str) -> Loader:
    with stores.meta.read() as meta:
        digest = meta.get_version("dataset", reference).digest
    manifest = read_manifest(stores.blobs, digest)
    options: Any = {"batch_size": 32, "epochs": 1, "drop_last": False}
    return Loader(stores.blobs, stores.layout, manifest, "train", **options)


def seen(batches: Loader) -> Counter[str]:
    return Counter(name for batch in batches for name in batch["id"])


def test_data_is_prepared_reused_and_read_through_the_cache(home: Path, stores: Stores) -> None:
    first = ps.prepare("numbers", rows, key="id", splits=SPLITS)
    again = ps.prepare("numbers", rows, key="id", splits=SPLITS)
    assert (first.reused, again.reused) == (False, True)
    table = ps.open("numbers:train").to_arrow()
    assert seen(loader(stores, "numbers")) == Counter(table["id"].to_pylist())
    assert not (home / "blobs").exists(), "nothing is written beside the store"
    before = stores.blobs.counters.bytes_read  # type: ignore[attr-defined]
    assert seen(loader(stores, "numbers")) == Counter(table["id"].to_pylist())
    after = stores.blobs.counters.bytes_read  # type: ignore[attr-defined]
    assert after - before < 20_000, "the second epoch's shards come from the node's cache"


def test_a_forked_worker_reads_data_that_its_parent_opened(stores: Stores) -> None:
    ps.prepare("numbers", rows, key="id", splits=SPLITS)
    expected = seen(loader(stores, "numbers"))
    opened = loader(stores, "numbers")
    child = os.fork()
    if child == 0:
        for file in stores.layout.root.rglob("*.arrow"):
            file.unlink()  # so that it has to ask the store
        os._exit(0 if seen(opened) == expected else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_what_no_version_needs_is_collected_from_the_store(stores: Stores) -> None:
    ps.prepare("numbers", rows, key="id", splits=SPLITS)
    expected = seen(loader(stores, "numbers"))
    rubbish = stores.blobs.put(os.urandom(100_000))
    assert collect_garbage(stores, dry_run=True, grace_seconds=-5).condemned >= 1
    assert stores.blobs.exists(rubbish)
    assert collect_garbage(stores, grace_seconds=-5).condemned >= 1
    assert not stores.blobs.exists(rubbish)
    assert collect_garbage(stores, grace_seconds=-5).bytes >= 100_000
    assert list(stores.blobs.condemned()) == []
    assert seen(loader(stores, "numbers")) == expected


def test_the_commands_work_on_an_object_store(stores: Stores) -> None:
    ps.prepare("numbers", rows, key="id", splits=SPLITS)

    def ask(*words: str) -> Any:
        command = [sys.executable, "-m", "penstock.cli.main", *words, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert ask("gc")["purged"] == 0
    assert "numbers" in json.dumps(ask("data", "list"))
    checks = ask("doctor")
    assert "honours conditional writes" in json.dumps(checks)
