"""Data whose blobs and raw files lie in an object store: the same rows, versions and order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penstock.base.settings import load_settings
from penstock.blobs.remote.address import parse
from penstock.blobs.remote.client import Client
from penstock.data import Loader, Manifest, read_manifest
from penstock.data.diff import diff
from penstock.data.exporting import export
from penstock.data.pipeline.opening import Sampled, Shards
from penstock.data.preparation import Prepared, prepare
from penstock.data.reading import read_split
from penstock.data.samples import Pack, Windows
from penstock.data.verifying import verify
from penstock.home.data import import_files
from penstock.jobs import forks
from penstock.jobs.stores import Stores, open_stores

pytestmark = [pytest.mark.s3, pytest.mark.timeout(180)]

STEPS = """
    import os, signal
    from pathlib import Path

    def told(row, log):
        with open(log, "a") as file:
            file.write(f"{row['id']}\\n")
        doom = Path(log + ".doom")  # at which row, and who dies: a process, or whoever prepares it
        if doom.exists() and row["id"] == int(doom.read_text().split()[0]):
            victim = int(doom.read_text().split()[1]) or os.getpid()
            doom.unlink()
            os.kill(victim, signal.SIGKILL)
        return {**row, "y": 2 * row["x"]}
    """
SCRIPT = """
    import os, sys
    from pathlib import Path
    from tests.data.test_object_store import Place

    if __name__ == "__main__":
        folder, blobs, raw, doomed = sys.argv[1:]
        place = Place(Path(folder), blobs, raw)
        Path(f"{place.log}.doom").write_text(f"{doomed} {os.getpid()}")
        place.prepare()
    """


class Place:
    """A home, and raw files either beside it or in the store."""

    def __init__(self, folder: Path, blobs: str | None, raw: str) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.raw, self.log = folder, raw, folder / "log"
        settings = load_settings(folder=folder, environment={}, home=folder / "home", blobs=blobs)
        self.stores: Stores = open_stores(settings)

    def write(self, number: int, rows: int = 10, shift: float = 0.0) -> None:
        lines = "".join(f"{number * 10 + i},{i / 2 + shift}\n" for i in range(rows))
        name, data = f"part-{number:03d}.csv", f"id,x\n{lines}".encode()
        if "://" not in self.raw:
            Path(self.raw).mkdir(exist_ok=True)
            Path(self.raw, name).write_bytes(data)
        else:
            plain, _, options = self.raw.partition("?")
            base, _, prefix = plain.removeprefix("s3://").partition("/")
            Client(parse(f"s3://{base}?{options}")).overwrite(f"{prefix}/{name}", memoryview(data))

    def prepare(self, workers: int = 2, name: str = "data") -> Prepared:
        import far_steps  # type: ignore[import-not-found]

        return prepare(
            self.stores, name, self.raw, map=far_steps.told, params={"log": str(self.log)},
            key="id", unit_bytes=0, workers=workers, splits={"train": 0.7, "test": 0.3},
        )  # fmt: skip

    def ran(self) -> Counter[int]:
        """How often each row went through the step since this was asked last."""
        found = Counter(map(int, self.log.read_text().split())) if self.log.exists() else Counter()
        self.log.unlink(missing_ok=True)
        return found

    def content(self, made: Prepared) -> dict[str, str]:
        data = read_manifest(self.stores.blobs, made.version.digest)
        return {name: split.digest for name, split in data.splits.items()}


@pytest.fixture(scope="module")
def far(moto: str, new_bucket: Callable[[], str]) -> Callable[[str], str]:
    """`far("prefix")`: a URL in this module's bucket."""
    forks.end()  # the next image sees the keys
    bucket = new_bucket()
    return lambda prefix: f"s3://{bucket}/{prefix}?endpoint={moto}&region=us-east-1"


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with a step."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "far_steps.py").write_text(textwrap.dedent(STEPS))
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    yield folder
    sys.modules.pop("far_steps", None)


# prepared


@pytest.mark.faults
def test_a_version_is_the_same_whether_files_and_blobs_are_here_or_in_a_store(
    code: Path, tmp_path: Path, far: Callable[[str], str]
) -> None:
    near = Place(tmp_path / "near", None, str(tmp_path / "raw"))
    half = Place(tmp_path / "half", far("half/blobs"), str(tmp_path / "raw"))
    whole = Place(tmp_path / "whole", far("whole/blobs"), far("whole/raw"))
    for number in range(6):
        near.write(number)
        whole.write(number)
    Path(f"{whole.log}.doom").write_text("33 0")  # one of its workers dies there
    contents = [near.content(near.prepare(0)), half.content(half.prepare())]
    contents.append(whole.content(whole.prepare()))
    assert contents[0] == contents[1] == contents[2]
    assert not (tmp_path / "whole/home/blobs").exists()
    assert near.ran().keys() == half.ran().keys() == set(range(60))
    assert whole.ran()[30] == 2

    assert whole.prepare().reused
    for place in (near, whole):
        place.write(3, shift=1.0)
        place.write(6)
    again = [place.content(place.prepare(0)) for place in (near, half, whole)]
    assert again[0] == again[1] == again[2] != contents[0]
    assert [{row // 10 for row in place.ran()} for place in (half, whole)] == [{3, 6}] * 2


@pytest.mark.faults
def test_a_caller_killed_over_a_store_is_continued_with_what_is_missing(
    code: Path, tmp_path: Path, far: Callable[[str], str]
) -> None:
    here = tmp_path / "here"
    place = Place(here, far("killed/blobs"), far("killed/raw"))
    for number in range(8):
        place.write(number)
    killed = subprocess.run(
        [sys.executable, "script.py", str(here), far("killed/blobs"), place.raw, "55"],
        cwd=code,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    first = place.ran()
    with place.stores.meta.read() as meta:
        assert meta.versions("dataset") == []
        newest = meta.newest_run("data", "prepare")
        done = {int(unit.payload["names"][0][5:8]) for unit in meta.units(newest.id, ("done",))}
    assert len(done) < 8 and {row // 10 for row in first} >= done
    made = place.prepare()
    assert (made.reference, made.version.summary["rows"]) == ("data@1", 80)
    assert {row // 10 for row in place.ran()} - {0} <= set(range(8)) - done  # 0 is sampled
    assert verify(place.stores.blobs, made.version).whole


ROOT = Path(__file__).parents[2]


# read


def demos(rows: int = 200) -> list[dict[str, Any]]:
    """Episodes of 20 steps, ten a second, with words."""
    return [
        {
            "id": i,
            "episode": f"e{i // 20:02d}",
            "time": i % 20 / 10,
            "joints": np.full(3, i, np.float32),
            "words": np.arange(i % 7 + 1, dtype=np.int32) + 10 * i,
        }
        for i in range(rows)
    ]


@pytest.fixture(scope="module")
def twins(
    make: Any, far: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Stores, Manifest]]:
    """The same dataset of six shards, here and in the store."""
    found = []
    for name, blobs in (("near", None), ("far", far("twin"))):
        place = Place(tmp_path_factory.mktemp(name), blobs, "")
        found.append((place.stores, make(place.stores.blobs, demos(), shard_rows=37)))
    return found


def batches(stores: Stores, data: Manifest, samples: Any = None, **options: Any) -> list[Any]:
    rows = Shards(stores.blobs.url, str(stores.layout.root), data.digest, "all")
    opening: Any = rows
    if samples is not None:
        opening = Sampled(samples, rows, folder=stores.layout.samples)
    loader = Loader.over(opening.open(), opening=opening, batch_size=12, epochs=2, **options)
    found = list(loader)
    loader.close()
    return found


def noisy(sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return {**sample, "joints": sample["joints"] + rng.random(3, np.float32)}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(np.array_equal(one, other))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("samples", "options"),
    [
        (None, {"map": noisy}),
        (None, {"map": noisy, "shuffle": "window", "window_rows": 50}),
        (Windows(history=3, horizon=2), {}),
        (Windows(history=0.4, horizon=0.2, unit="seconds", rate=10, pad="drop"), {}),
        (Pack(length=16, columns=("words",)), {}),
    ],
    ids=["rows", "in windows", "steps around a moment", "seconds around a moment", "packs"],
)
def test_the_order_over_a_store_is_the_local_one_bit_by_bit(
    twins: list[tuple[Stores, Manifest]], samples: Any, options: dict[str, Any], workers: int
) -> None:
    (near, here), (far, there) = twins
    wanted = batches(near, here, samples, threads=0, **options)
    found = batches(far, there, samples, workers=workers, **options)
    assert len(wanted) >= 8 and equal(found, wanted)


# looked at and taken elsewhere


def test_versions_in_a_store_are_verified_compared_exported_and_imported(
    tmp_path: Path, far: Callable[[str], str]
) -> None:
    place = Place(tmp_path / "here", far("looked/blobs"), far("looked/raw"))
    stores = place.stores
    options: dict[str, Any] = {"key": "id", "splits": {"all": 1.0}}
    for number in range(3):
        place.write(number)
    first = import_files(stores, "numbers", [place.raw], options, None)
    assert (first.reference, first.rows, first.reused) == ("numbers@1", 30, False)
    assert import_files(stores, "numbers", [place.raw], options, None).reused
    place.write(1, rows=8, shift=0.5)
    second = import_files(stores, "numbers", [place.raw], options, None)
    assert (second.reference, second.rows) == ("numbers@2", 28)

    with stores.meta.read() as meta:
        versions = [meta.get_version("dataset", f"numbers@{number}") for number in (1, 2)]
    old, new = (read_manifest(stores.blobs, each.digest) for each in versions)
    found = diff(stores.blobs, old, new)
    assert (found.added, found.removed, found.changed) == (0, 2, 8)

    folder = tmp_path / "out"
    assert export(stores, "numbers@2", folder, "csv").rows == 28
    again = import_files(stores, "again", [str(folder)], options, None)
    with stores.meta.read() as meta:
        copy = meta.get_version("dataset", again.reference)
    rows = [
        read_split(stores.blobs, read_manifest(stores.blobs, each.digest), "all").to_pylist()
        for each in (versions[1], copy)
    ]
    assert rows[0] == rows[1]

    assert verify(stores.blobs, versions[1]).whole
    shard = new.shards[0].digest
    stores.blobs.condemn(shard)
    stores.blobs.purge(shard)
    verdict = verify(stores.blobs, versions[1])
    assert [each.where for each in verdict.damages] == ["all/0"]
