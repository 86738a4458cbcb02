"""The disk fills up while files are prepared: one error, nothing visible, and on it goes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.base.errors import DiskFull
from penstock.base.settings import load_settings
from penstock.data import read_manifest
from penstock.data.preparation import Prepared, Progress, prepare
from penstock.data.reading import read_split
from penstock.jobs.stores import Stores, open_stores

pytestmark = [pytest.mark.faults, pytest.mark.root]

FILES, ROWS = 8, 200


@pytest.fixture
def disk_size() -> str:
    return "400k"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Eight files that take 80 KB each once they are prepared."""
    folder = tmp_path / "raw"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(FILES):
        rows = np.arange(ROWS) + number * ROWS
        columns = {"id": rows, **{f"x{i}": random.random(ROWS) for i in range(50)}}
        text = [",".join(columns)]
        text += [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
        (folder / f"part-{number}.csv").write_text("\n".join(text) + "\n")
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_ends_a_preparation_of_files_which_goes_on_when_there_is_room(
    raw: Path, small_disk: Path, tmp_path: Path, workers: int
) -> None:
    settings = load_settings(
        folder=tmp_path,
        environment={},
        home=tmp_path / "home",
        blobs=f"file://{small_disk}/blobs",
    )
    ran: list[Progress] = []

    def make(stores: Stores, workers: int) -> Prepared:
        ran.clear()
        options: dict[str, Any] = {"key": "id", "splits": {"all": 1.0}, "unit_bytes": 0}
        return prepare(
            stores, "numbers", str(raw), workers=workers, on_progress=ran.append, **options
        )

    with open_stores(settings) as stores:
        with pytest.raises(DiskFull) as caught:
            make(stores, workers)
        assert str(small_disk) in str(caught.value)
        with stores.meta.read() as meta:
            assert meta.versions("dataset") == []
            assert meta.oldest_pin() is None
            newest = meta.newest_run("numbers", "prepare")
            done = len(meta.units(newest.id, ("done",))) if newest else 0
        print("DONE", done)
        assert done < FILES
        assert not list((small_disk / "blobs/tmp").iterdir())
        subprocess.run(["mount", "-o", "remount,size=32m", small_disk], check=True)
        made = make(stores, 0)
        units = [each for each in ran if each.stage == "units"]
        assert units[-1].done - units[0].done == FILES - done
        data = read_manifest(stores.blobs, made.version.digest)
        rows = read_split(stores.blobs, data, "all", ["id"])["id"].to_pylist()
        assert sorted(rows) == list(range(FILES * ROWS))
