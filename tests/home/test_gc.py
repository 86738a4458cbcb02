"""Garbage collection never loses what a row or a live writer needs, and loses the rest."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.base.errors import LeaseHeld, NotFound
from penstock.base.hashing import digest_bytes
from penstock.base.layout import Layout
from penstock.base.process import Identity
from penstock.base.settings import Settings
from penstock.blobs import open_blobs
from penstock.home import gc
from penstock.home.gc import Collected, collect_garbage
from penstock.jobs.stores import Stores, open_stores
from penstock.meta import open_meta
from penstock.records import Checkpoint, Run

ME = str(Identity.mine())


@pytest.fixture(autouse=True)
def one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stores of these tests go by one clock, so that no margin hides a mistake."""
    monkeypatch.setattr(gc, "_SKEW", 0.0)


def _in_memory() -> Stores:
    settings = Settings(home=Path("/nonexistent"))
    return Stores(settings, Layout(settings.home), open_meta("memory://"), open_blobs("memory://"))


@pytest.fixture
def stores() -> Stores:
    return _in_memory()


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Stores]:
    opened = open_stores(Settings(home=tmp_path / "home"))
    yield opened
    opened.close()


def _refer(stores: Stores, digest: str) -> None:
    with stores.meta.write() as writer:
        writer.refer("run/1", [digest])


def _pin(stores: Stores, holder: str = ME) -> str:
    with stores.meta.write() as writer:
        return writer.pin(holder)


def _collect(stores: Stores) -> Collected:
    return collect_garbage(stores, grace_seconds=0)


def _gone(stores: Stores, digest: str) -> bool:
    try:
        stores.blobs.get(digest)
    except NotFound:
        return True
    return False


def test_what_nobody_refers_to_goes_in_two_collections(stores: Stores) -> None:
    rubbish = stores.blobs.put(b"rubbish")
    kept = stores.blobs.put(b"kept")
    _refer(stores, kept)
    assert _collect(stores) == Collected(condemned=1)
    assert stores.blobs.get(rubbish) == b"rubbish"
    assert _collect(stores) == Collected(purged=1, bytes=7)
    assert _gone(stores, rubbish)
    assert stores.blobs.exists(kept)
    assert _collect(stores) == Collected()


def test_a_dropped_checkpoint_gives_its_room_back(stores: Stores) -> None:
    shared, own = stores.blobs.put(b"shared"), stores.blobs.put(b"its own")
    with stores.meta.write() as writer:
        writer.add_run(Run("run-1", "x", "train", "running", {}))
        writer.add_checkpoint(Checkpoint("run-1", 1, own, 1, 1.0, 7), [shared])
        writer.add_checkpoint(Checkpoint("run-1", 2, shared, 1, 1.0, 7), [])
    assert _collect(stores) == Collected()
    with stores.meta.write() as writer:
        writer.drop_checkpoint("run-1", 1)
    _collect(stores)
    assert _collect(stores).purged == 1
    assert _gone(stores, own)
    assert stores.blobs.exists(shared)


def test_what_was_condemned_and_is_referred_to_comes_back(stores: Stores) -> None:
    digest = stores.blobs.put(b"late")
    _collect(stores)
    _refer(stores, digest)
    assert _collect(stores) == Collected(restored=1)
    assert stores.blobs.exists(digest)


def test_a_pin_that_is_older_than_the_condemnation_protects(stores: Stores) -> None:
    digest = stores.blobs.put(b"found by the writer")
    pin = _pin(stores)
    assert _collect(stores).condemned == 1
    assert _collect(stores) == Collected()
    with stores.meta.write() as writer:
        writer.unpin(pin)
    assert _collect(stores).purged == 1
    assert _gone(stores, digest)


def test_a_younger_pin_does_not_keep_old_rubbish(stores: Stores) -> None:
    stores.blobs.put(b"rubbish")
    _collect(stores)
    _pin(stores)
    assert _collect(stores).purged == 1


def test_between_two_clocks_there_is_a_margin(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc, "_SKEW", 300.0)
    stores.blobs.put(b"rubbish")
    _collect(stores)
    _pin(stores)
    assert _collect(stores).purged == 0, "by the other store's clock the pin may be the older"


def test_a_dead_writers_pin_protects_nothing(stores: Stores) -> None:
    mine = Identity.mine()
    stores.blobs.put(b"rubbish")
    _pin(stores, str(replace(mine, started=mine.started - 1)))
    assert _collect(stores).condemned == 1
    assert _collect(stores).purged == 1


def test_young_blobs_are_left_alone(stores: Stores) -> None:
    digest = stores.blobs.put(b"young")
    assert collect_garbage(stores) == Collected()
    stores.blobs.condemn(digest)
    assert collect_garbage(stores) == Collected()
    assert stores.blobs.get(digest) == b"young"


def test_a_dry_run_counts_and_changes_nothing(stores: Stores) -> None:
    stores.blobs.put(b"one")
    stores.blobs.condemn(stores.blobs.put(b"two22"))
    assert collect_garbage(stores, dry_run=True, grace_seconds=0) == Collected(
        condemned=1, purged=1, bytes=5
    )
    assert [len(list(side())) for side in (stores.blobs.list, stores.blobs.condemned)] == [1, 1]
    with stores.meta.read() as reader:
        assert reader.find_lease("gc") is None


def test_one_collection_runs_at_a_time(stores: Stores) -> None:
    with stores.meta.write() as writer:
        lease = writer.take_lease("gc", ME, 60)
    with pytest.raises(LeaseHeld):
        collect_garbage(stores)
    with stores.meta.write() as writer:
        writer.release_lease(lease)
    assert collect_garbage(stores) == Collected()


def test_more_blobs_than_one_batch(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "_BATCH", 7)
    digests = [stores.blobs.put(b"%d" % n) for n in range(40)]
    for digest in digests[::2]:
        _refer(stores, digest)
    assert _collect(stores).condemned == 20
    assert _collect(stores).purged == 20
    assert {stat.digest for stat in stores.blobs.list()} == set(digests[::2])


# races: other writers' steps happen between any two steps of the collection


class Writers:
    """Some writers, each going through pin -> put -> commit -> unpin, one step at a time."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.at = [0] * 3
        self.pins: list[str] = [""] * 3
        self.found: list[str] = [""] * 3

    def step(self, who: int, content: int) -> None:
        """The writer's next step; contents are few, so that they meet condemned ones often."""
        match self.at[who]:
            case 0:
                self.pins[who] = _pin(self.stores)
            case 1:
                self.found[who] = self.stores.blobs.put(bytes([content]))
            case 2:
                with self.stores.meta.write() as writer:
                    writer.remember(f"key-{content}", "test", {}, [])
                    writer.refer(f"memory/{self.found[who]}", [self.found[who]])
            case 3:
                with self.stores.meta.write() as writer:
                    writer.unpin(self.pins[who])
        self.at[who] = (self.at[who] + 1) % 4

    def drop(self, content: int) -> None:
        """Whoever referred to this content does so no longer."""
        with self.stores.meta.write() as writer:
            writer.let_go(f"memory/{digest_bytes(bytes([content]))}")  # type: ignore[attr-defined]

    def nothing_is_lost(self) -> None:
        digests = [digest_bytes(bytes([n])) for n in range(4)]
        with self.stores.meta.read() as reader:
            wanted = reader.referenced(digests)
        for digest in wanted:
            self.stores.blobs.get(digest)


class Interrupted:
    """A store as the collection sees it: before each call, something else may happen."""

    def __init__(self, inner: Any, meanwhile: Callable[[], None]) -> None:
        self._inner, self._meanwhile = inner, meanwhile

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self._meanwhile()
            return getattr(self._inner, name)(*arguments, **options)

        return call


_steps = st.lists(
    st.tuples(
        st.sampled_from(["step", "step", "step", "drop"]), st.integers(0, 2), st.integers(0, 3)
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(script=st.lists(_steps, min_size=10, max_size=60), collections=st.integers(2, 5))
def test_in_any_order_of_steps_no_blob_of_a_row_is_lost(
    script: list[list[tuple[str, int, int]]], collections: int
) -> None:
    stores = _in_memory()
    writers = Writers(stores)
    left = iter(script)

    def meanwhile() -> None:
        for what, who, content in next(left, []):
            if what == "step":
                writers.step(who, content)
            else:
                writers.drop(content)
            writers.nothing_is_lost()

    seen = replace(
        stores,
        meta=Interrupted(stores.meta, meanwhile),
        blobs=Interrupted(stores.blobs, meanwhile),
    )
    for _ in range(collections):
        _collect(seen)
        writers.nothing_is_lost()
    for _ in range(2):
        _collect(stores)
        writers.nothing_is_lost()


def test_the_law_of_this_file_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the look at pins the same steps lose a blob: the test above tests something."""
    stores = _in_memory()
    writers = Writers(stores)
    stores.blobs.put(bytes([0]))
    writers.step(0, 0)  # pin
    writers.step(0, 0)  # found: already there
    _collect(stores)
    monkeypatch.setattr(type(stores.meta.read().__enter__()), "oldest_pin", lambda _: None)
    _collect(stores)
    writers.step(0, 0)  # commit
    with pytest.raises(NotFound):
        writers.nothing_is_lost()


@pytest.mark.faults
def test_writers_and_collectors_that_are_killed_lose_nothing(on_disk: Stores) -> None:
    seed = int(os.environ.get("PENSTOCK_CHAOS_SEED", random.randrange(1 << 30)))
    print(f"PENSTOCK_CHAOS_SEED={seed}")
    chance = random.Random(seed)
    settings_ = on_disk.settings
    for _ in range(6):
        children = [_start(lambda n=n: _write_for_ever(settings_, n)) for n in range(2)]
        children.append(_start(lambda: _collect_for_ever(settings_)))
        for _ in range(chance.randrange(3, 12)):
            on_disk.meta.wait_events(_last(on_disk), timeout=2)
        chance.shuffle(children)
        for child in children:
            os.kill(child, signal.SIGKILL)
            assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        _every_reference_is_whole(on_disk)
    assert _last(on_disk) > 10
    for _ in range(2):
        _collect(on_disk)
    _every_reference_is_whole(on_disk)
    with on_disk.meta.read() as reader:
        everything = [stat.digest for stat in on_disk.blobs.list()]
        assert reader.referenced(everything) == set(everything)
        assert list(on_disk.blobs.condemned()) == []


def _last(stores: Stores) -> int:
    with stores.meta.read() as reader:
        return reader.last_event()


def _start(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(70)
    return child


def _write_for_ever(settings_: Settings, n: int) -> None:
    stores = open_stores(settings_)
    chance = random.Random(n + os.getpid())
    while True:
        pin = _pin(stores, str(Identity.mine()))
        content = bytes([chance.randrange(12)])
        digest = stores.blobs.put(content)
        with stores.meta.write() as writer:
            writer.refer(f"memory/{digest}", [digest])
            writer.event("gc", "committed")
        with stores.meta.write() as writer:
            writer.unpin(pin)
            dropped = digest_bytes(bytes([chance.randrange(12)]))
            writer.let_go(f"memory/{dropped}")  # type: ignore[attr-defined]


def _collect_for_ever(settings_: Settings) -> None:
    stores = open_stores(settings_)
    while True:
        _collect(stores)


def _every_reference_is_whole(stores: Stores) -> None:
    digests = [digest_bytes(bytes([n])) for n in range(12)]
    with stores.meta.read() as reader:
        wanted = reader.referenced(digests)
    for digest in wanted:
        stores.blobs.verify(digest)
