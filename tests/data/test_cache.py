"""The node's cache: shared, checked, repaired, safe under SIGKILL, and never needed."""

from __future__ import annotations

import fcntl
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.base.errors import Damaged
from penstock.base.layout import Layout
from penstock.blobs import Blobs, open_blobs
from penstock.data import Loader, Manifest
from penstock.data import cache as cache_module
from penstock.data.cache import ShardCache


@pytest.fixture(autouse=True)
def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has checked and said is its own."""
    monkeypatch.setattr(cache_module, "_checked", set())
    monkeypatch.setattr(cache_module, "_said", set())


def batches(blobs: Blobs, layout: Layout, data: Manifest) -> list[Any]:
    loader = Loader(blobs, layout, data, "all", batch_size=10, name="numbers@1")
    return [(b["id"].tolist(), b["image"].tolist(), b["mask"].tolist(), b["name"]) for b in loader]


def cached(layout: Layout) -> list[Path]:
    return sorted(layout.shards.glob("*.v1"))


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 4
    path.unlink()
    path.write_bytes(data)


def test_a_warm_cache_needs_no_blob(make: Any, blobs: Blobs, layout: Layout) -> None:
    data = make(blobs, shard_rows=40)
    first = batches(blobs, layout, data)
    assert batches(open_blobs("memory://"), layout, data) == first


def test_gathering_maps_the_cache_and_copies_no_shard(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    data = make(blobs, {"id": np.arange(4000), "x": np.zeros((4000, 256))})  # 8 MB
    before = pa.total_allocated_bytes()
    loader = Loader(blobs, layout, data, "all", batch_size=10)
    loader.example()
    assert pa.total_allocated_bytes() - before < 1 << 20


@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.99, 1.0])
def test_a_damaged_cached_shard_is_built_anew(
    make: Any, blobs: Blobs, layout: Layout, at: float
) -> None:
    data = make(blobs)
    first = batches(blobs, layout, data)
    (path,) = cached(layout)
    whole = path.read_bytes()
    flip(path, at)
    assert batches(blobs, layout, data) == first
    assert path.read_bytes() == whole


@pytest.mark.parametrize("left", [0, 10, 31, 32, 1000])
def test_a_torn_cached_shard_is_built_anew(
    make: Any, blobs: Blobs, layout: Layout, left: int
) -> None:
    data = make(blobs)
    first = batches(blobs, layout, data)
    (path,) = cached(layout)
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(whole[:left])
    assert batches(blobs, layout, data) == first
    assert path.read_bytes() == whole


def test_a_cached_shard_is_checked_once_per_process(
    make: Any, blobs: Blobs, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(blobs)
    checks = []
    whole = cache_module._is_whole
    monkeypatch.setattr(cache_module, "_is_whole", lambda *a: checks.append(1) or whole(*a))
    for _ in range(3):
        batches(blobs, layout, data)
    assert len(checks) == 1


def test_a_damaged_shard_is_named_before_anything_is_trained_on_it(
    make: Any, blobs: Blobs, layout: Layout, damage: Callable[[str], None]
) -> None:
    data = make(blobs, shard_rows=40)
    damage(data.shards[1].digest)
    loader = Loader(
        blobs, layout, data, "all", batch_size=10, shuffle=False, name="numbers@1", columns=["id"]
    )
    given = []
    with pytest.raises(
        Damaged, match='shard 1 of split "all" of dataset numbers@1 is damaged'
    ) as error:
        given += [row for batch in loader for row in batch["id"].tolist()]
    assert error.value.facts | {"dataset": "numbers@1", "split": "all", "shard": 1} == (
        error.value.facts
    )
    assert "fresh=True" in error.value.fix
    assert loader.state()["next"] == 4
    assert [path.name[:64] for path in cached(layout)] == [data.shards[0].digest[7:]]


def test_a_lost_shard_is_named_too(make: Any, blobs: Blobs, layout: Layout) -> None:
    data = make(blobs)
    blobs.condemn(data.shards[0].digest)
    blobs.purge(data.shards[0].digest)
    with pytest.raises(Damaged, match=r"shard 0 of split .* is gone"):
        batches(blobs, layout, data)


def test_a_blob_that_is_no_parquet_is_damaged(blobs: Blobs, layout: Layout) -> None:
    digest = blobs.put(b"PAR1 but not quite PAR1")
    with pytest.raises(Damaged, match="not a shard of format parquet"):
        ShardCache(blobs, layout.shards).open(digest)


def test_a_damaged_blob_does_not_matter_while_the_cache_is_whole(
    make: Any, blobs: Blobs, layout: Layout, damage: Callable[[str], None]
) -> None:
    data = make(blobs)
    first = batches(blobs, layout, data)
    damage(data.shards[0].digest)
    assert batches(blobs, layout, data) == first


def test_a_folder_that_cannot_be_made_means_reading_in_memory(
    make: Any, blobs: Blobs, layout: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make(blobs, shard_rows=10)
    first = batches(blobs, layout, data)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "cache").write_text("in the way")
    with caplog.at_level(logging.WARNING, logger="penstock"):
        assert batches(blobs, Layout(tmp_path / "other"), data) == first
    said = [each for each in caplog.records if "cannot be cached" in each.message]
    assert len(said) == 1  # not once per shard


def test_something_else_in_a_shards_place_means_reading_in_memory(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    data = make(blobs)
    first = batches(blobs, layout, data)
    (path,) = cached(layout)
    path.unlink()
    path.mkdir()
    assert batches(blobs, layout, data) == first


@pytest.mark.root
def test_a_full_disk_means_reading_in_memory(
    make: Any, blobs: Blobs, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.random.default_rng(0).integers(0, 255, (1000, 1024), dtype=np.uint8)
    data = make(blobs, {"id": np.arange(1000), "x": values}, shard_rows=100)  # 100 KB each
    with caplog.at_level(logging.WARNING, logger="penstock"):
        loader = Loader(blobs, Layout(small_disk), data, "all", batch_size=100)
        for batch in loader:
            assert np.array_equal(batch["x"].numpy(), values[batch["id"].numpy()])
    assert "No space left" in caplog.records[0].facts["why"]
    assert len(cached(Layout(small_disk))) == 2
    assert not list(Layout(small_disk).shards.glob("*.tmp"))


class Counting:
    """A blob store that counts reads of whole blobs in a file, over all processes."""

    def __init__(self, blobs: Blobs, tally: Path) -> None:
        self._blobs, self._tally = blobs, tally

    def get(self, digest: str) -> bytes:
        with self._tally.open("ab") as stream:
            stream.write(b".")
        return self._blobs.get(digest)


def test_processes_that_open_a_shard_at_once_fetch_it_once(
    make: Any, blobs: Blobs, layout: Layout, tmp_path: Path
) -> None:
    data = make(blobs, {"id": np.arange(20_000), "x": np.random.default_rng(0).random((20_000, 8))})
    counting = Counting(blobs, tmp_path / "tally")
    shard = data.shards[0].digest, data.shards[0].format
    ready, go = os.pipe()
    children = []
    for _ in range(6):
        child = os.fork()
        if child == 0:
            status = 70
            try:
                os.close(go)
                os.read(ready, 1)  # all start when the pipe closes
                batch = ShardCache(counting, layout.shards).open(*shard)  # type: ignore[arg-type]
                status = 0 if batch.num_rows == 20_000 else 71
            finally:
                os._exit(status)
        children.append(child)
    os.close(go)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
    os.close(ready)
    assert (tmp_path / "tally").read_bytes() == b"."


@pytest.mark.faults
def test_killed_on_any_line_the_next_one_finds_a_whole_shard_or_none(
    make: Any,
    blobs: Blobs,
    layout: Layout,
    chance: random.Random,
    in_child: Callable[..., int],
) -> None:
    data = make(blobs)
    shard = data.shards[0].digest, data.shards[0].format

    def work() -> object:
        return ShardCache(blobs, layout.shards).open(*shard)

    expected = ShardCache(blobs, layout.root / "other").open(*shard)
    deaths = 0
    for line in sorted({1, 2, 3, *(chance.randrange(4, 120) for _ in range(25))}):
        for path in cached(layout):
            path.unlink()
        deaths += in_child(work, die_at=line, part="data/cache.py") != 0
        assert ShardCache(blobs, layout.shards).open(*shard).equals(expected)
        assert not list(layout.shards.glob("*.tmp"))
    assert deaths >= 10


def test_a_builder_that_hangs_delays_the_others_only_for_a_while(
    make: Any, blobs: Blobs, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(blobs)
    layout.shards.mkdir(parents=True)
    monkeypatch.setattr(cache_module, "_PATIENCE", 0.05)
    hanging = []
    for number in range(64):
        hanging.append(os.open(layout.shards / f"{number:02}.lock", os.O_RDWR | os.O_CREAT))
        fcntl.flock(hanging[-1], fcntl.LOCK_EX)
    try:
        assert len(batches(blobs, layout, data)) == 10
        assert len(cached(layout)) == 1
    finally:
        for handle in hanging:
            os.close(handle)


def test_a_file_of_another_format_is_left_alone(make: Any, blobs: Blobs, layout: Layout) -> None:
    data = make(blobs)
    layout.shards.mkdir(parents=True)
    older = layout.shards / f"{data.shards[0].digest[7:]}.v0"
    older.write_bytes(b"of another Penstock")
    batches(blobs, layout, data)
    assert older.read_bytes() == b"of another Penstock"


def test_a_process_that_reads_opens_no_database(make: Any, blobs: Blobs, layout: Layout) -> None:
    data = make(blobs)
    code = (
        "import sys; from pathlib import Path\n"
        "from penstock.base.layout import Layout; from penstock.blobs import open_blobs\n"
        "from penstock.data import Loader, read_manifest\n"
        f"blobs = open_blobs({blobs.url!r})\n"
        f"data = read_manifest(blobs, {data.digest!r})\n"
        f"loader = Loader(blobs, Layout(Path({str(layout.root)!r})), data, 'all', batch_size=10)\n"
        "assert len(list(loader)) == 10\n"
        "assert not {'sqlalchemy', 'alembic', 'grpc', 'pandas'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
