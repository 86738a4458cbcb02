"""All or nothing: threads, errors, deaths, forks, full and read-only disks."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.base.errors import BadInput, Conflict, DiskFull, NotFound, ReadOnly, Unavailable
from penstock.meta import Meta, open_meta
from penstock.records import Run, Version


def _kinds(meta: Meta) -> list[str]:
    with meta.read() as reader:
        return [event.kind for event in reader.events()]


def test_what_an_error_interrupts_did_not_happen(meta: Meta) -> None:
    with pytest.raises(ZeroDivisionError), meta.write() as writer:
        writer.event("x", "never")
        1 / 0  # noqa: B018
    assert _kinds(meta) == []


def test_a_caller_may_catch_a_conflict_and_go_on(meta: Meta, run: Run) -> None:
    with meta.write() as writer:
        with pytest.raises(Conflict):
            writer.add_run(run)
        writer.event("x", "went on")
    assert _kinds(meta) == ["went on"]


def test_an_error_of_the_database_that_is_swallowed_still_ends_the_transaction(
    meta: Meta, run: Run
) -> None:
    """A database may have ended the transaction by itself; the rest must not become visible."""
    from penstock.records import Attempt

    with pytest.raises(Conflict), meta.write() as writer:
        writer.event("x", "before")
        with pytest.raises(Conflict):
            writer.add_attempt(Attempt("run-0", 1, 1, 1.0, 0))  # no such run
        with pytest.raises(Conflict):
            writer.event("x", "after")
    assert _kinds(meta) == []


def test_a_transaction_inside_another_of_the_same_thread_is_refused(meta: Meta) -> None:
    with pytest.raises(Unavailable, match="inside"), meta.write() as writer:
        writer.event("x", "outer")
        with meta.write():
            pass
    assert _kinds(meta) == []
    with meta.write() as writer:
        writer.event("x", "works again")


def test_a_reader_may_be_used_inside_a_writer_and_around_it(meta: Meta) -> None:
    with meta.write() as writer:
        writer.event("x", "a")
        with meta.read() as reader:
            reader.last_event()
    with meta.read(), meta.write() as writer:
        writer.event("x", "b")
    assert _kinds(meta) == ["a", "b"]


def test_a_reader_sees_one_moment(shared_meta: Meta) -> None:
    """Of engines that let readers and writers run side by side."""
    with shared_meta.read() as reader:
        assert reader.last_event() == 0
        with shared_meta.write() as writer:
            writer.event("x", "meanwhile")
        assert reader.last_event() == 0
    assert _kinds(shared_meta) == ["meanwhile"]


def test_a_reader_that_is_used_too_late_says_so(shared_meta: Meta) -> None:
    with shared_meta.read() as reader:
        pass
    with pytest.raises(Unavailable, match="transaction ended"):
        reader.last_event()


def test_many_threads_number_versions_without_gaps(meta: Meta) -> None:
    made: list[Version] = []

    def publish(n: int) -> None:
        with meta.write() as writer:
            made.append(writer.add_version("model", "cnn", "", f"run/{n}", {}, []))

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(version.version for version in made) == list(range(1, 21))


def test_of_many_swaps_on_one_revision_one_wins(meta: Meta) -> None:
    with meta.write() as writer:
        writer.add_version("model", "cnn", "", "run/1", {}, [])
        writer.move_alias("model", "cnn", "production", 1, None)
    lost: list[Conflict] = []

    def swap() -> None:
        try:
            with meta.write() as writer:
                writer.move_alias("model", "cnn", "production", 1, 1)
        except Conflict as error:
            lost.append(error)

    threads = [threading.Thread(target=swap) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lost) == 7


# deaths and forks


def _publish(store: Meta, n: int) -> None:
    """A run, its version, alias and event: visible together or not at all."""
    with store.write() as writer:
        writer.add_run(Run(f"run-{n}", "base", "train", "finished", {}))
        version = writer.add_version("model", "cnn", f"sha256:{n:064x}", f"run/{n}", {}, [])
        before = writer.find_alias("model", "cnn", "newest")
        expect = None if before is None else before.revision
        writer.move_alias("model", "cnn", "newest", version.version, expect)
        writer.event(f"run/run-{n}", "run.finished")


def _published(store: Meta) -> int:
    """How many were published; every trace of each must be there."""
    with store.read() as reader:
        runs = len(reader.runs(limit=1000))
        assert len(reader.versions("model", limit=1000)) == runs
        alias = reader.find_alias("model", "cnn", "newest")
        assert (alias.version if alias else 0) == (alias.revision if alias else 0) == runs
        kinds = [event.kind for event in reader.events()]
        assert kinds == ["version.added", "alias.moved", "run.finished"] * runs
    return runs


@pytest.mark.faults
def test_a_writer_killed_at_any_line_leaves_all_or_nothing(
    file_meta: Meta, in_child: Callable[..., int], chance: random.Random
) -> None:
    lines = _count_lines(file_meta.url, in_child)
    assert lines > 100
    before = _published(file_meta)
    for n in range(30):
        number = 1000 + n

        def publish(number: int = number) -> None:
            store = open_meta(file_meta.url)
            _publish(store, number)
            store.close()

        status = in_child(publish, die_at=chance.randrange(1, lines + 20))
        after = _published(file_meta)
        assert after in (before, before + 1)
        assert status in (0, 9)
        assert after == before + 1 or status == 9
        before = after


def _count_lines(url: str, in_child: Callable[..., int]) -> int:
    """About how many lines an opening and a publication run through, found by halving."""
    low, high = 1, 20_000
    while high - low > 50:
        middle = (low + high) // 2

        def publish(middle: int = middle) -> None:
            store = open_meta(url)
            _publish(store, middle)
            store.close()

        low, high = (low, middle) if in_child(publish, die_at=middle) == 0 else (middle, high)
    return high


@pytest.mark.faults
def test_a_dead_writer_does_not_block_the_next_one(
    shared_meta: Meta, in_child: Callable[..., int]
) -> None:
    def die_inside() -> None:
        with open_meta(shared_meta.url).write() as writer:
            writer.event("x", "never")
            os.kill(os.getpid(), 9)

    assert in_child(die_inside) == 9
    with shared_meta.write() as writer:
        writer.event("x", "next")
    assert _kinds(shared_meta) == ["next"]


def test_no_store_crosses_a_fork(meta: Meta, in_child: Callable[..., int]) -> None:
    def try_everything() -> None:
        for use in (
            lambda: meta.read().__enter__(),
            lambda: meta.write().__enter__(),
            lambda: meta.wait_events(0),
        ):
            with pytest.raises(Unavailable, match="fork"):
                use()
        meta.close()

    assert in_child(try_everything) == 0
    with meta.write() as writer:
        writer.event("x", "the parent goes on")
    assert _kinds(meta) == ["the parent goes on"]


def test_a_child_that_forgets_its_parents_store_does_it_no_harm(
    shared_meta: Meta, tmp_path: Path
) -> None:
    """The child ends through the interpreter's own end, which frees every object."""
    with shared_meta.write() as writer:
        writer.event("x", "one")
    script = f"""
import gc, os
from penstock.meta import open_meta
meta = open_meta("{shared_meta.url}")
with meta.read() as reader:
    reader.last_event()
child = os.fork()
if child == 0:
    del meta, reader
    gc.collect()
else:
    assert os.waitpid(child, 0)[1] == 0
    assert not meta.url.startswith("sqlite") or os.path.exists("{tmp_path}/meta.db-wal")
    with meta.write() as writer:
        writer.event("x", "two")
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert _kinds(shared_meta) == ["one", "two"]


# URLs


def test_the_url_opens_the_same_store(meta: Meta) -> None:
    with meta.write() as writer:
        writer.event("x", "shared")
    again = open_meta(meta.url)
    assert _kinds(again) == ["shared"]
    again.close()


@pytest.mark.parametrize(
    "url", ["sqlit:///x", "plain.db", "", "sqlite://", "sqlite:///", "postgres://u:secret@h/d"]
)
def test_a_url_that_is_not_known_is_refused(url: str) -> None:
    with pytest.raises(BadInput) as caught:
        open_meta(url)
    assert "sqlite:///" in caught.value.fix
    assert "secret" not in str(caught.value)


def test_a_store_in_memory_of_another_process_is_not_found() -> None:
    with pytest.raises(NotFound):
        open_meta("memory://4711-nobody")


def test_a_path_with_odd_characters_is_taken_literally(tmp_path: Path) -> None:
    path = tmp_path / "a b%20?c#d" / "meta.db"
    for _ in range(2):
        store = open_meta(f"sqlite:///{path}")
        with store.write() as writer:
            writer.event("x", "y")
        store.close()
    assert path.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a b%20?c#d"]


def test_a_relative_path_is_of_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_meta("sqlite:///here.db")
    assert store.url == f"sqlite:///{tmp_path}/here.db"
    store.close()
    assert (tmp_path / "here.db").exists()


# disks


@pytest.mark.root
def test_a_full_disk_is_said_and_nothing_changed(small_disk: Path) -> None:
    store = open_meta(f"sqlite:///{small_disk}/meta.db")
    with store.write() as writer:
        writer.event("x", "before")
    with pytest.raises(DiskFull), store.write() as writer:
        for n in range(100):
            writer.event("x", f"never {n}", {"text": "long" * 10_000})
    assert _kinds(store) == ["before"]
    with store.write() as writer:
        writer.event("x", "after")
    assert _kinds(store) == ["before", "after"]
    store.close()


@pytest.mark.root
def test_a_disk_without_room_for_a_new_store_is_said(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(1020 * 1024))
    with pytest.raises(DiskFull):
        open_meta(f"sqlite:///{small_disk}/meta.db")


@pytest.mark.root
@pytest.mark.parametrize("there", [True, False], ids=["existing", "fresh"])
def test_a_read_only_home_is_said(small_disk: Path, there: bool) -> None:
    url = f"sqlite:///{small_disk}/home/meta.db"
    if there:
        open_meta(url).close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(ReadOnly) as caught:
        open_meta(url)
    assert "home" in caught.value.fix


@pytest.mark.root
def test_a_disk_that_becomes_read_only_is_said(small_disk: Path) -> None:
    store = open_meta(f"sqlite:///{small_disk}/meta.db")
    store.close()  # the pool opens files anew: a mount cannot change under open ones
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(ReadOnly), store.write() as writer:
        writer.event("x", "never")
