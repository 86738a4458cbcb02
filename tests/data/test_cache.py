"""The node's cache: shared, checked, repaired, safe under SIGKILL, and never needed."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.base.errors import Damaged
from penstock.base.layout import Layout
from penstock.blobs import Blobs, open_blobs
from penstock.blobs.local import LocalBlobs
from penstock.data import Loader, Manifest, Shard, ShardSource
from penstock.data.cache import ShardCache, form, ledger, locks, node


@pytest.fixture(autouse=True)
def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has said is its own."""
    monkeypatch.setattr(node, "_said", set())


class Remote(LocalBlobs):
    """A store whose files are not ours to map, as in an object store; counts what is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.tally = root.parent / "tally"

    def path(self, digest: str) -> Path | None:
        return None

    def get(self, digest: str) -> bytes:
        with self.tally.open("ab") as stream:
            stream.write(b".")
        return super().get(digest)

    @property
    def fetched(self) -> int:
        """Whole blobs, by any process."""
        return self.tally.stat().st_size if self.tally.exists() else 0


@pytest.fixture
def blobs(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "blobs")


@pytest.fixture
def damage(blobs: Remote) -> Callable[[str], None]:
    def run(digest: str) -> None:
        path = LocalBlobs.path(blobs, digest)
        assert path is not None
        path.chmod(0o644)
        flip(path, 0.5)

    return run


def batches(blobs: Blobs, layout: Layout, data: Manifest) -> list[Any]:
    loader = Loader(blobs, layout, data, "all", batch_size=10, name="numbers@1")
    return [(b["id"].tolist(), b["image"].tolist(), b["mask"].tolist(), b["name"]) for b in loader]


def cached(layout: Layout) -> list[Path]:
    return sorted(layout.shards.glob("v2/*.arrow"))


def flip(path: Path, at: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 4
    path.unlink()
    path.write_bytes(data)


def test_a_warm_cache_needs_no_blob(make: Any, blobs: Blobs, layout: Layout) -> None:
    data = make(blobs, shard_rows=40)
    first = batches(blobs, layout, data)
    assert batches(open_blobs("memory://"), layout, data) == first


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


def test_a_shard_is_checked_once_per_node_and_after_a_reboot(
    make: Any, blobs: Blobs, layout: Layout, monkeypatch: pytest.MonkeyPatch, in_child: Any
) -> None:
    data = make(blobs)
    batches(blobs, layout, data)
    checks = []
    whole = form.is_whole
    monkeypatch.setattr(form, "is_whole", lambda *a: checks.append(1) or whole(*a))

    def another() -> None:
        batches(blobs, layout, data)
        assert not checks

    assert in_child(another) == 0
    monkeypatch.setattr(ledger, "_boot", lambda: "another boot")
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
    given: list[int] = []
    with pytest.raises(
        Damaged, match='shard 1 of split "all" of dataset numbers@1 is damaged'
    ) as error:
        for batch in loader:
            given += batch["id"].tolist()
    assert error.value.facts | {"dataset": "numbers@1", "split": "all", "shard": 1} == (
        error.value.facts
    )
    assert "fresh=True" in error.value.fix
    assert given == list(range(10 * loader.state()["next"])) and len(given) <= 40
    assert data.shards[1].digest[7:] not in {path.name[:64] for path in cached(layout)}


def overwrite(path: Path, *, put_back: bool) -> None:
    """Other bytes in the same inode, of the same size; with the times that it had."""
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.chmod(0o644)
    path.write_bytes(data)
    if put_back:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_ino == times.st_ino and path.stat().st_size == times.st_size


def test_a_cached_shard_that_is_overwritten_after_it_was_checked_is_built_anew(
    make: Any, blobs: Blobs, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(blobs)
    first = batches(blobs, layout, data)
    (path,) = cached(layout)
    whole = path.read_bytes()
    overwrite(path, put_back=False)
    assert batches(blobs, layout, data) == first
    assert path.read_bytes() == whole
    overwrite(path, put_back=True)  # whoever forges the time is found out by the next boot
    monkeypatch.setattr(ledger, "_boot", lambda: "another boot")
    assert batches(blobs, layout, data) == first
    assert path.read_bytes() == whole


@pytest.mark.parametrize("put_back", [False, True])
def test_a_blob_that_is_overwritten_after_it_was_checked_is_damaged(
    make: Any, layout: Layout, tmp_path: Path, put_back: bool
) -> None:
    local = LocalBlobs(tmp_path / "local")
    ids = np.arange(500)
    data = make(local, {"id": ids, "x": np.zeros((500, 64), np.float32) + ids[:, None]})
    source = ShardSource(local, layout, data, "all", name="numbers@1")
    assert source.gather(ids)["x"][:, 0].tolist() == ids.tolist()
    source.close()
    path = local.path(data.shards[0].digest)
    assert path is not None and not cached(layout), "it is mapped where it lies"
    overwrite(path, put_back=put_back)
    source = ShardSource(local, layout, data, "all", name="numbers@1")
    with pytest.raises(Damaged, match=r"shard 0 of split .* of dataset numbers@1 is damaged"):
        source.gather(ids)
    source.close()


def test_a_lost_shard_is_named_too(make: Any, blobs: Blobs, layout: Layout) -> None:
    data = make(blobs)
    blobs.condemn(data.shards[0].digest)
    blobs.purge(data.shards[0].digest)
    with pytest.raises(Damaged, match=r"shard 0 of split .* is gone"):
        batches(blobs, layout, data)


def test_a_blob_that_is_no_shard_is_damaged(blobs: Blobs, layout: Layout) -> None:
    digest = blobs.put(b"PAR1 but not quite PAR1")
    for format in ("parquet", "arrow", "mapped"):
        with pytest.raises(Damaged, match=f"not a shard of format {format}"):
            ShardCache(blobs, layout.shards).open(Shard("all", 0, digest, 1, 23, format))


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
    layout = Layout(small_disk)
    with caplog.at_level(logging.WARNING, logger="penstock"):
        source = ShardSource(blobs, layout, data, "all", limit=1 << 30)
        for start in range(0, 1000, 100):
            rows = np.arange(start, start + 100)
            assert np.array_equal(source.gather(rows)["x"], values[rows])
    assert "No space left" in caplog.records[0].facts["why"]
    assert len(caplog.records) == 1
    assert len(cached(layout)) == 2
    assert not list(layout.shards.rglob("*.tmp"))


def in_processes(many: int, work: Callable[[], object]) -> list[int]:
    """Run `work` in forked processes that start at once; returns their wait statuses."""
    ready, go = os.pipe()
    children = []
    for _ in range(many):
        child = os.fork()
        if child == 0:
            status = 70
            try:
                os.close(go)
                os.read(ready, 1)  # all start when the pipe closes
                work()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    os.close(go)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    os.close(ready)
    return statuses


def test_processes_that_open_a_shard_at_once_fetch_it_once(
    make: Any, blobs: Remote, layout: Layout
) -> None:
    rows = 20_000
    data = make(blobs, {"id": np.arange(rows), "x": np.random.default_rng(0).random((rows, 8))})
    before = blobs.fetched

    def work() -> None:
        opened = ShardCache(blobs, layout.shards).open(data.shards[0])
        assert opened.batch.num_rows == rows

    assert in_processes(6, work) == [0] * 6
    assert blobs.fetched - before == 1


@pytest.mark.faults
def test_killed_on_any_line_the_next_one_finds_a_whole_shard_or_none(
    make: Any,
    blobs: Blobs,
    layout: Layout,
    chance: random.Random,
    in_child: Callable[..., int],
) -> None:
    data = make(blobs)
    shard = data.shards[0]

    def work() -> object:
        return ShardCache(blobs, layout.shards).open(shard)

    expected = ShardCache(blobs, layout.root / "other").open(shard).batch
    deaths = 0
    for line in sorted({1, 2, 3, *(chance.randrange(4, 120) for _ in range(25))}):
        for path in cached(layout):
            path.unlink()
        deaths += in_child(work, die_at=line, part="data/cache/") != 0
        assert ShardCache(blobs, layout.shards).open(shard).batch.equals(expected)
        assert not list(layout.shards.rglob("*.tmp"))
    assert deaths >= 10


def test_a_builder_that_hangs_delays_the_others_only_for_a_while(
    make: Any, blobs: Blobs, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(blobs)
    batches(blobs, layout, data)
    (path,) = cached(layout)
    path.unlink()
    monkeypatch.setattr(node, "PATIENCE", 0.05)
    others = locks.Locks(path.parent)
    with others.building(path.name, wait=True, moved=lambda: 0, patience=1) as alone:
        assert alone
        assert len(batches(blobs, layout, data)) == 10
    assert cached(layout) == [path]


def test_a_builder_that_gets_on_is_waited_for(layout: Layout) -> None:
    layout.shards.mkdir(parents=True)
    mine, others = locks.Locks(layout.shards), locks.Locks(layout.shards)
    steps = iter(range(100))
    with ExitStack() as holding:
        holding.enter_context(others.building("x", wait=True, moved=lambda: 0, patience=1))

        def moved() -> int:
            if (step := next(steps)) == 20:
                holding.close()  # done
            return step

        with mine.building("x", wait=True, moved=moved, patience=0.001) as alone:
            assert alone


def test_what_another_version_cached_is_left_alone_and_told(
    make: Any, blobs: Blobs, layout: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    data = make(blobs)
    layout.shards.mkdir(parents=True)
    older = layout.shards / f"{data.shards[0].digest[7:]}.v1"
    older.write_bytes(b"of another Penstock")
    with caplog.at_level(logging.WARNING, logger="penstock"):
        batches(blobs, layout, data)
        batches(blobs, layout, data)
    assert older.read_bytes() == b"of another Penstock"
    said = [each for each in caplog.records if "another version" in each.message]
    assert [each.facts["first"] for each in said] == [older.name]


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


@pytest.mark.faults
def test_a_child_forked_while_its_parent_builds_holds_up_nobody(tmp_path: Path) -> None:
    mine = locks.Locks(tmp_path)
    over, ended = os.pipe()
    with mine.building("shard", wait=True, moved=int, patience=60) as ours:
        assert ours
        if (child := os.fork()) == 0:  # has the handle of the lock until it ends
            os.close(ended)
            os.read(over, 1)
            os._exit(0)
    assert not mine.being_built("shard")
    with mine.building("shard", wait=False, moved=int, patience=60) as ours:
        assert ours
    os.close(ended)
    assert os.waitpid(child, 0)[1] == 0
