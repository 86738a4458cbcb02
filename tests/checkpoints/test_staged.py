"""Checkpoints on a disk before a far store: whole or not there, in order, never lost, bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import penstock.checkpoints as ck
from penstock.base.errors import StoreUnreachable
from penstock.blobs import Blobs
from penstock.checkpoints.staged import Note, Staged
from penstock.checkpoints.uploads import Uploads


class Refusing:
    """A store that takes nothing until it is told to; `tries` are those it refused."""

    def __init__(self, inner: Blobs) -> None:
        self._inner = inner
        self.opened = threading.Event()
        self.tries = 0

    def put(self, data: Any, *, mend: bool = False) -> str:
        if not self.opened.is_set():
            self.tries += 1
            raise StoreUnreachable("refused", "wait")
        return self._inner.put(bytes(data), mend=mend)


@pytest.fixture
def staged(tmp_path: Path) -> Staged:
    (tmp_path / "staged").mkdir()
    (tmp_path / "staged" / "limit").write_text(str(1 << 30))
    return Staged(tmp_path / "staged")


@pytest.fixture
def stage(staged: Staged, fill: Any) -> Callable[..., Note]:
    """`stage(step)`: what the checkpoint writer does with one rank's slot."""

    def run(step: int, rank: int = 0, world: int = 1, gang: int = 1) -> Note:
        state = {"w": torch.full((1000,), float(step))}
        plan = ck.plan(state, {"rank": rank}, rank, world)
        extra = {"metrics": {}, "best": None}
        message = {"gang": gang, "slot": "a", "step": step, "rank": rank, "index": plan.index}
        return staged.stage("run-a", {**message, "extra": extra}, {"a": fill(plan)})

    return run


def until(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_what_is_staged_is_whole_when_all_ranks_parts_are_there_and_read_by_whoever_comes(
    staged, stage, tmp_path
) -> None:
    first, again = stage(10, rank=0, world=2), stage(10, rank=0, world=2)
    assert first.name == again.name and first.body == again.body
    assert not staged.whole("run-a")
    stage(10, rank=1, world=2)
    stage(20, rank=0, world=2)
    another = Staged(tmp_path / "staged")
    (ten,) = another.whole("run-a")
    assert [(note.key, note.rank, note.stored) for note in ten] == [
        ((1, 10), 0, False),
        ((1, 10), 1, False),
    ]
    parts = [note.body["part"] for note in ten]
    data, _ = ck.assemble("run-a", 10, 1, 2, parts, {})
    state = ck.load(another.blobs, ck.parse_manifest(data), 1, 2)
    assert torch.equal(state.shared["w"], torch.full((1000,), 10.0))


def test_a_writer_that_dies_at_any_line_leaves_a_part_that_is_noted_or_nothing_to_upload(
    staged, stage, in_child
) -> None:
    died = 0
    for line in range(1, 400, 7):
        status = in_child(lambda: stage(30), die_at=line, part="checkpoints/staged.py")
        for note in staged.notes("run-a"):
            if staged.blobs.exists(note.blob):
                staged.blobs.verify(note.blob)
            staged.drop("run-a", [note.name])
        if status == 0:
            break
        died += 1
    assert status == 0 and died > 3


def test_parts_reach_the_store_in_their_order_though_it_refuses_for_a_while(
    staged, stage, memory
) -> None:
    told: list[dict[str, Any]] = []
    store = Refusing(memory)
    uploads = Uploads(staged, "run-a", store, told.append)  # type: ignore[arg-type]
    notes = [stage(step, rank, 2) for step in (10, 20) for rank in (0, 1)]
    for note in notes:
        uploads.add(note)
    until(lambda: store.tries >= 2)
    assert uploads.count() == 2
    assert [each["step"] for each in told if "delayed" in each] == [10]
    assert told[0]["delayed"]["code"] == "store-unreachable"
    store.opened.set()
    uploads.settle()
    arrived = [(each["step"], each["rank"]) for each in told if "delayed" not in each]
    assert arrived == [(10, 0), (10, 1), (20, 0), (20, 1)]
    assert all(memory.exists(note.blob) for note in notes)
    assert all(note.stored for note in staged.notes("run-a"))


def test_a_successor_finishes_what_is_noted_and_leaves_out_what_is_not_wanted_any_more(
    staged, stage, memory
) -> None:
    notes = [stage(step) for step in (10, 20, 30)]
    staged.stored("run-a", notes[0].name)
    staged.drop("run-a", [notes[1].name])
    told: list[dict[str, Any]] = []
    Uploads(staged, "run-a", memory, told.append).settle()
    assert [each["step"] for each in told] == [10, 30]
    assert memory.exists(notes[0].blob), "it was there, and was collected since"
    assert not memory.exists(notes[1].blob)
    assert memory.exists(notes[2].blob)


def test_a_part_that_changed_on_the_disk_costs_its_checkpoint_and_no_other(
    staged, stage, memory
) -> None:
    notes = [stage(step) for step in (10, 20)]
    path = staged.blobs.path(notes[0].blob)
    path.chmod(0o644)
    flip(path)
    told: list[dict[str, Any]] = []
    Uploads(staged, "run-a", memory, told.append).settle()
    assert [each.get("error", {}).get("code") for each in told] == ["damaged", None]
    assert [note.step for note in staged.notes("run-a")] == [20]


def test_whoever_stages_too_much_waits_until_the_store_took_some(
    staged, stage, memory, caplog
) -> None:
    store = Refusing(memory)
    uploads = Uploads(staged, "run-a", store, lambda _: None, most=2)  # type: ignore[arg-type]
    for step in (10, 20):
        assert uploads.wait_for_room(4000)
        uploads.add(stage(step))
    waiting = threading.Thread(target=uploads.wait_for_room, args=(4000,))
    waiting.start()
    until(lambda: "waiting until the object store" in caplog.text)
    assert waiting.is_alive()
    store.opened.set()
    waiting.join(20)
    assert not waiting.is_alive()


def test_copies_go_when_there_is_no_room_the_oldest_first_and_never_what_is_noted(
    staged, stage, tmp_path
) -> None:
    notes = [stage(step) for step in (10, 20, 30)]
    size = sum(stat.size for stat in staged.blobs.list()) // 3
    staged.drop("run-a", [note.name for note in notes[1:]])
    (tmp_path / "staged" / "limit").write_text(str(3 * size))
    assert staged.make_room(size)
    assert [staged.blobs.exists(note.blob) for note in notes] == [True, False, True]
    assert not staged.make_room(3 * size)
    assert [staged.blobs.exists(note.blob) for note in notes] == [True, False, False]
    (tmp_path / "staged" / "limit").write_text("0")
    assert not staged.is_used


def test_a_copy_with_a_flipped_bit_is_replaced_by_the_store_and_the_others_are_read_here(
    save, memory, tmp_path
) -> None:
    shared = {"w": torch.arange(4_000_000, dtype=torch.float32), "v": torch.ones(7)}
    saved = save(memory, shared, [{"rank": 0}, {"rank": 1}])
    staged = Staged(tmp_path / "staged")
    manifest = ck.read_manifest(memory, saved.digest)
    for digest in (saved.digest, *manifest.blobs):
        staged.blobs.put(memory.get(digest))
    near = ck.Near(tmp_path / "staged", memory)
    assert ck.newest_whole([saved], near).checkpoint == saved
    assert near.fetched == 0
    path = staged.blobs.path(manifest.parts[0].blob)
    path.chmod(0o644)
    flip(path)
    near = ck.Near(tmp_path / "staged", memory)
    state = ck.load(near, manifest, 0, 2)
    assert torch.equal(state.shared["w"], shared["w"])
    assert near.fetched == 1
    assert not path.exists()
    path = staged.blobs.path(manifest.parts[1].blob)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-3])
    near = ck.Near(tmp_path / "staged", memory)
    found = ck.newest_whole([saved], near)
    assert (found.checkpoint, found.damages) == (saved, [])
    assert near.fetched == 2


def flip(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, 1)
        stream.write(bytes([byte ^ 1]))
