"""A project with steps, a folder of raw files, and what a preparation made of them."""

from __future__ import annotations

import csv
import importlib
import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.data.manifest import Manifest, read_manifest
from penstock.data.preparation import Prepared, Progress, cutting, prepare
from penstock.data.reading import read_split
from penstock.jobs.stores import Stores

STEPS = """
    import os, signal
    from pathlib import Path

    import numpy as np


    def double(row):
        return {"id": row["id"], "y": 2 * row["x"], "name": f"n{row['id']}"}


    def half(row, scale=2):
        return {**row, "z": row["y"] / scale}


    def even(row):
        return row["id"] % 2 == 0


    def twice(row):
        for part in "ab":
            yield {"id": f"{row['id']}{part}", "x": row["x"]}


    def picky(row):
        if row["id"] % 10 == 3:
            raise ValueError(f"no threes: {row['id']}")
        return row


    def sums(columns):
        return {"id": columns["id"], "total": columns["id"] + columns["x"]}


    def picky_sums(columns):
        if (columns["id"] % 10 == 3).any():
            raise ValueError("no threes")
        return sums(columns)


    def chancy(row):
        return {"id": row["id"], "x": np.random.default_rng().random()}


    def rare(row):
        return {"id": row["id"], "note": "late" if row["id"] > 150 else None,
                "words": np.arange(row["id"] % 2 + (row["id"] > 100), dtype=np.int32)}


    def told(row, log=""):
        with open(log, "a") as file:
            file.write(f"{row['id']}\\n")
        deadly = Path(log + ".deadly")
        if deadly.exists() and row["id"] == int(deadly.read_text()):
            deadly.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return row


    def numbers(log):
        with open(log, "a") as file:
            file.write("called\\n")
        yield from ({"id": i, "x": i / 2} for i in range(50))


    def by_id(row):
        return row["id"]
    """


class Project:
    """A folder of code and one of raw CSV files, 10 rows (id, x) each, and a home."""

    def __init__(self, folder: Path, stores: Stores) -> None:
        self.folder, self.stores = folder, stores
        self.raw = folder / "raw"
        self.code = folder / "code"
        self.raw.mkdir()
        self.code.mkdir()
        self.write_steps(STEPS)
        self.progress: list[Progress] = []

    def write_steps(self, text: str) -> Any:
        (self.code / "project_steps.py").write_text(textwrap.dedent(text))
        for cached in self.code.glob("__pycache__/*"):
            cached.unlink()
        sys.modules.pop("project_steps", None)
        importlib.invalidate_caches()
        self.steps = importlib.import_module("project_steps")
        return self.steps

    def write(self, number: int, rows: int = 10, shift: float = 0.0) -> Path:
        path = self.raw / f"part-{number:03d}.csv"
        with path.open("w") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "x"])
            writer.writerows([number * 10 + i, i / 2 + shift] for i in range(rows))
        return path

    def files(self, count: int = 20) -> Path:
        for number in range(count):
            self.write(number)
        return self.raw

    def prepare(self, sources: Any = None, name: str = "data", **options: Any) -> Prepared:
        options = {"key": "id", "workers": 0, "on_progress": self.progress.append} | options
        self.progress.clear()
        return prepare(self.stores, name, str(sources or self.raw), **options)

    def ran(self) -> int:
        """Units that the last preparation ran."""
        units = [each for each in self.progress if each.stage == "units"]
        return units[-1].done - units[0].done if units else 0

    def manifest(self, made: Prepared) -> Manifest:
        return read_manifest(self.stores.blobs, made.version.digest)

    def rows(self, made: Prepared) -> dict[str, list[dict[str, Any]]]:
        data = self.manifest(made)
        return {
            split: read_split(self.stores.blobs, data, split).to_pylist() for split in data.splits
        }

    def all_rows(self, made: Prepared) -> list[dict[str, Any]]:
        return [row for rows in self.rows(made).values() for row in rows]

    def versions(self) -> list[str]:
        with self.stores.meta.read() as meta:
            return [each.reference for each in meta.versions("dataset")]


@pytest.fixture
def project(tmp_path: Path, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir(exist_ok=True)
    (tmp_path / "code").rmdir()
    monkeypatch.syspath_prepend(tmp_path / "code")
    made = Project(tmp_path, stores)
    yield made
    sys.modules.pop("project_steps", None)
    with stores.meta.read() as meta:
        assert meta.oldest_pin() is None


@pytest.fixture
def a_file_a_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units of one small file each, in this process."""
    monkeypatch.setattr(cutting, "UNIT_BYTES", 1)


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[[str, list[Any]], Path]:
    """`jsonl(name, rows)`: a file of JSON lines; text is written as it is."""

    def run(name: str, rows: list[Any]) -> Path:
        path = tmp_path / name
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("\n".join(lines) + "\n")
        return path

    return run
