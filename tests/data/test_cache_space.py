"""The cache is bounded: what is least wanted goes, what is open stays, and it all is counted."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.base.errors import SettingsError
from penstock.base.layout import Layout
from penstock.base.settings import load_settings
from penstock.blobs import Blobs
from penstock.blobs.local import LocalBlobs
from penstock.data import Manifest, ShardSource
from penstock.data.cache import Counters, ShardCache, node_counters
from penstock.data.cache import fetch as fetch_module
from penstock.data.cache.ahead import Ahead
from penstock.data.cache.node import NoRoom
from penstock.jobs.stores import open_stores

SIZE = 22_000  # bytes: a cached shard takes a little less
SHARDS = 10


class Remote(LocalBlobs):
    """A store whose files are not ours to map; remembers what was read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[tuple[str, int]] = []
        self.hold = threading.Event()
        self.hold.set()

    def path(self, digest: str) -> Path | None:
        return None

    def get(self, digest: str) -> bytes:
        self.hold.wait(10)
        data = super().get(digest)
        self.reads.append((digest, len(data)))
        return data

    def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes:
        data = super().read(digest, start, length)
        self.reads.append((digest, len(data)))
        return data


@pytest.fixture
def blobs(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "blobs")


@pytest.fixture
def data(make: Any, blobs: Blobs) -> Manifest:
    """10 shards of 16 KiB."""
    x = np.random.default_rng(0).integers(0, 255, (160, 1024), dtype=np.uint8)
    return make(blobs, {"id": np.arange(160), "x": x}, shard_rows=16)  # type: ignore[no-any-return]


def names(layout: Layout) -> set[str]:
    return {path.name[:64] for path in layout.shards.glob("v2/*.arrow")}


def used(layout: Layout) -> int:
    return sum(p.stat().st_size for p in layout.shards.rglob("*") if p.suffix in (".arrow", ".tmp"))


def digests(data: Manifest, *numbers: int) -> set[str]:
    return {data.shards[number].digest[7:] for number in numbers}


def test_the_cache_keeps_to_its_limit_and_the_oldest_goes(data: Manifest, layout: Layout) -> None:
    blobs = Remote(layout.root / "blobs")
    cache = ShardCache(blobs, layout.shards, 4 * SIZE)
    for number in [0, 1, 2, 3, 0, 4, 5]:
        cache.close(cache.open(data.shards[number]))
        assert used(layout) <= 4 * SIZE
    assert names(layout) == digests(data, 0, 3, 4, 5)
    counted = cache.counters()
    assert (counted.hits, counted.misses) == (1, 6)
    assert counted.fetched == sum(size for _, size in blobs.reads)
    assert counted.evicted == 2 * (counted.fetched // 6 + 32)


def test_what_is_done_goes_first_and_what_is_open_stays(
    data: Manifest, blobs: Blobs, layout: Layout
) -> None:
    cache, another = (ShardCache(blobs, layout.shards, 4 * SIZE) for _ in range(2))
    opened = another.open(data.shards[0])
    for number in (1, 2, 3):
        cache.close(cache.open(data.shards[number]), done=number == 3)
    cache.close(cache.open(data.shards[4]))
    assert names(layout) == digests(data, 0, 1, 2, 4)
    cache.close(cache.open(data.shards[5]))
    assert names(layout) == digests(data, 0, 2, 4, 5)
    another.close(opened)
    cache.close(cache.open(data.shards[6]))
    assert names(layout) == digests(data, 2, 4, 5, 6)


def test_a_shard_that_finds_no_room_is_read_into_memory(
    data: Manifest, blobs: Blobs, layout: Layout
) -> None:
    cache = ShardCache(blobs, layout.shards, 2 * SIZE)
    held = [cache.open(data.shards[number]) for number in (0, 1)]
    third = cache.open(data.shards[2])
    assert (third.name, third.batch.num_rows) == ("", 16)
    assert names(layout) == digests(data, 0, 1)
    for opened in (*held, third):
        cache.close(opened)
    nothing = ShardCache(blobs, layout.shards, 0).open(data.shards[3])
    assert nothing.batch.num_rows == 16


def test_an_epoch_through_a_small_cache_gives_every_row(
    data: Manifest, blobs: Remote, layout: Layout
) -> None:
    whole = ShardSource(blobs, layout, data, "all")
    wanted = whole.gather(np.arange(160))["x"]
    whole.close()
    small = Layout(layout.root / "small")
    source = ShardSource(blobs, small, data, "all", limit=4 * SIZE)
    blobs.reads.clear()
    for start in range(0, 160, 8):
        rows = np.arange(start, start + 8)
        source.ahead(rows)
        assert np.array_equal(source.gather(rows)["x"], wanted[rows])
        source.done(rows)
        assert used(small) <= 4 * SIZE
    source.close()
    assert len(blobs.reads) == len({digest for digest, _ in blobs.reads}) == SHARDS


def test_counters_add_up_over_the_node(
    data: Manifest, blobs: Blobs, layout: Layout, in_child: Callable[..., int]
) -> None:
    def work() -> None:
        source = ShardSource(blobs, layout, data, "all")
        source.gather(np.arange(160))
        source.close()

    assert [in_child(work), in_child(work)] == [0, 0]
    found = node_counters(layout.shards / "v2")
    assert (found.hits, found.misses) == (SHARDS, SHARDS)
    assert found.fetched == sum(shard.bytes for shard in data.shards)
    assert node_counters(layout.root / "nowhere") == Counters()


def test_stalls_are_counted(data: Manifest, blobs: Remote, layout: Layout) -> None:
    source = ShardSource(blobs, layout, data, "all")
    blobs.hold.clear()
    timer = threading.Timer(0.02, blobs.hold.set)
    timer.start()
    source.gather(np.arange(4))
    timer.join()
    assert source.counters().stalls == 1
    assert source.counters().stalled_ns >= 10_000_000
    source.close()


def test_ahead_brings_what_is_wanted_in_its_order_as_far_as_there_is_room() -> None:
    brought: list[int] = []
    ready = threading.Condition()

    released: list[str] = []

    def bring(number: int) -> str:
        with ready:
            brought.append(number)
            ready.notify_all()
        return f"held {number}"

    ahead = Ahead(bring, released.append, lambda number: 10, 30)
    ahead.want([5, 3, 9, 1, 7])
    with ready:
        assert ready.wait_for(lambda: len(brought) == 3, 10)
    assert set(brought) == {5, 3, 9}
    assert ahead.take(3) == "held 3"
    with ready:
        assert ready.wait_for(lambda: len(brought) == 4, 10)
    assert brought[3] == 1
    assert ahead.take(7) == ""  # taken by hand: nobody needs to bring it
    assert ahead.take(5) == "held 5"
    ahead.close()
    assert brought[4:] == []
    assert set(released) == {"held 9", "held 1"}


def test_what_finds_no_room_is_brought_when_there_is_some() -> None:
    full, tried = threading.Event(), threading.Event()
    brought = threading.Event()

    def bring(number: int) -> str:
        tried.set()
        if not full.is_set():
            raise NoRoom
        brought.set()
        return ""

    ahead = Ahead(bring, lambda held: None, lambda number: 1, 10)
    ahead.want([1])
    assert tried.wait(10)
    full.set()
    assert brought.wait(10)
    ahead.close()


def test_what_was_brought_is_not_evicted_before_it_is_taken(
    data: Manifest, blobs: Remote, layout: Layout
) -> None:
    cache, another = (ShardCache(blobs, layout.shards, 3 * SIZE) for _ in range(2))
    held = [cache.bring(data.shards[number]) for number in (0, 1, 2)]
    with pytest.raises(NoRoom):
        another.bring(data.shards[3])
    another.close(another.open(data.shards[3]))
    assert names(layout) == digests(data, 0, 1, 2)
    cache.release(held[1])
    assert another.bring(data.shards[3])
    assert names(layout) == digests(data, 0, 2, 3)


def test_what_fails_ahead_is_told_to_who_gathers(
    data: Manifest, blobs: Remote, layout: Layout
) -> None:
    blobs.condemn(data.shards[0].digest)
    blobs.purge(data.shards[0].digest)
    source = ShardSource(blobs, layout, data, "all")
    source.ahead(np.arange(32))
    with pytest.raises(Exception, match="shard 0 of split"):
        source.gather(np.arange(4))
    assert len(source.gather(np.arange(16, 20))["id"]) == 4
    source.close()


def test_large_blobs_are_fetched_in_ranges_and_verified(
    data: Manifest, blobs: Remote, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "RANGE", 5000)
    shard = data.shards[0]
    cache = ShardCache(blobs, layout.shards)
    cache.close(cache.open(shard))
    assert len(blobs.reads) == -(-shard.bytes // 5000)
    assert sum(size for _, size in blobs.reads) == shard.bytes
    path = LocalBlobs.path(blobs, data.shards[1].digest)
    assert path is not None
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole[:-9000] + bytes(9000))
    with pytest.raises(Exception, match="damaged"):
        cache.open(data.shards[1])
    assert names(layout) == digests(data, 0)
    assert used(layout) == next(layout.shards.glob("v2/*.arrow")).stat().st_size


@pytest.mark.faults
def test_killed_while_evicting_the_next_one_keeps_to_the_limit(
    data: Manifest,
    blobs: Remote,
    layout: Layout,
    chance: random.Random,
    in_child: Callable[..., int],
) -> None:
    limit = 3 * SIZE
    order = list(range(SHARDS)) * 2

    def work() -> None:
        cache = ShardCache(blobs, layout.shards, limit)
        for number in order[:4]:
            cache.close(cache.open(data.shards[number]))

    deaths = 0
    for _ in range(12):
        chance.shuffle(order)
        deaths += in_child(work, die_at=chance.randrange(1, 900), part="data/cache/") != 0
        cache = ShardCache(blobs, layout.shards, limit)
        for number in range(SHARDS):
            opened = cache.open(data.shards[number])
            assert opened.batch["id"][0].as_py() == 16 * number
            assert opened.name, "there is room"
            cache.close(opened)
            assert used(layout) <= limit
        assert not list(layout.shards.rglob("*.tmp"))
    assert deaths >= 4


def test_the_setting_reaches_processes_that_know_only_the_home(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    for given, expected in ((1 << 30, 1 << 30), (0, 0), (None, None)):
        settings = load_settings(folder=tmp_path, home=tmp_path / "home", cache_bytes=given)
        with open_stores(settings) as stores:
            found = ShardCache(blobs, stores.layout.shards).limit
        free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
        assert found == expected if expected is not None else 0.3 * free < found < 0.7 * free


def test_indexes_of_samples_take_room_from_shards(data: Manifest, layout: Layout) -> None:
    layout.samples.mkdir(parents=True)
    (layout.samples / "index.v1").write_bytes(bytes(2 * SIZE))
    cache = ShardCache(Remote(layout.root / "blobs"), layout.shards, 4 * SIZE)
    for shard in data.shards:
        cache.close(cache.open(shard))
        assert used(layout) <= 2 * SIZE
    assert len(names(layout)) == 2


def test_a_dataset_with_a_quota_keeps_to_it_and_nobody_pushes_it_out(
    make: Any, tmp_path: Path
) -> None:
    quotas = {"cache_bytes": 6 * SIZE, "cache_quotas": {"team/mine": 2 * SIZE}}
    settings = load_settings(folder=tmp_path, home=tmp_path / "home", **quotas)
    with open_stores(settings) as stores:
        layout = stores.layout
    blobs = Remote(tmp_path / "blobs")
    x = np.random.default_rng(1).integers(0, 255, (160, 1024), dtype=np.uint8)
    data = make(blobs, {"id": np.arange(160), "x": x}, shard_rows=16)
    own = layout.quota_of("team/mine")

    def files(folder: Path) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in folder.glob("v2/*.arrow")}

    def read(name: str) -> None:
        source = ShardSource(blobs, layout, data, "all", name=name)
        for row in range(0, 160, 16):
            assert source.gather(np.array([row]))["id"] == [row]
        source.close()

    read("other@1")
    others = files(layout.shards)
    assert 0 < sum(others.values()) <= 4 * SIZE  # what the quota leaves
    assert not files(own)
    read("team/mine@1")
    mine = files(own)
    assert 0 < sum(mine.values()) <= 2 * SIZE
    assert files(layout.shards) == others
    read("other@2")
    assert files(own) == mine
    settings = load_settings(folder=tmp_path, home=tmp_path / "home", cache_bytes=6 * SIZE)
    with open_stores(settings):
        assert not own.exists()  # the quota is gone, and so is its part
        assert layout.shards_of("team/mine") == layout.shards
        assert ShardCache(blobs, layout.shards).limit == 6 * SIZE


def test_a_part_that_is_in_use_is_not_overdrawn_but_read_into_memory(
    data: Manifest, blobs: Remote, layout: Layout, caplog: Any
) -> None:
    own = layout.quota_of("mine")
    own.mkdir(parents=True)
    (own / "limit").write_text(str(SIZE))
    cache = ShardCache(blobs, layout.shards_of("mine"))
    first, second = cache.open(data.shards[0]), cache.open(data.shards[1])
    assert (first.name != "", second.name) == (True, "")
    assert "reading into memory" in caplog.text


@pytest.mark.parametrize(
    "given, why",
    [
        ({"cache_quotas": {"a": "1GB"}}, "parts of cache_bytes, which is not set"),
        ({"cache_bytes": 10, "cache_quotas": {"a": 6, "b": 6}}, "not parts of cache_bytes"),
        ({"cache_bytes": 10, "cache_quotas": {"a": "much"}}, '"much" is not a quantity'),
        ({"cache_bytes": 10, "cache_quotas": 7}, "no table of sizes"),
    ],
)
def test_quotas_that_cannot_be_are_refused(tmp_path: Path, given: Any, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        load_settings(folder=tmp_path, environment={}, **given)


def test_quotas_are_read_from_a_variable(tmp_path: Path) -> None:
    given = {"PENSTOCK_CACHE_BYTES": "5000", "PENSTOCK_CACHE_QUOTAS": "team/a=1kB, b = 2KiB"}
    found = load_settings(folder=tmp_path, environment=given).cache_quotas
    assert found == {"team/a": 1000, "b": 2048}
