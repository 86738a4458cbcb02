"""Checkpoints on this machine's disk become rows once, by whoever holds the lease, or never."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.training.conftest import until
from tests.training.test_fences import SPEC, Owner, rows

from penstock.base.errors import LeaseLost, Unavailable
from penstock.base.settings import load_settings
from penstock.blobs import open_blobs
from penstock.checkpoints import Note, Staged, plan
from penstock.jobs.stores import Stores, open_stores
from penstock.jobs.work import Call
from penstock.records import Run
from penstock.training.work import TrainingWork


@pytest.fixture
def stores(tmp_path: Any) -> Iterator[Stores]:
    """With a store that is not on this machine's disk."""
    with open_stores(load_settings(tmp_path, {}, home=tmp_path / "home")) as found:
        with found.meta.write() as tx:
            tx.add_run(Run("run-a", "base", "train", "running", SPEC))
        yield replace(found, blobs=open_blobs("memory://"))


@pytest.fixture
def staged(stores: Stores) -> Staged:
    return Staged(stores.layout.staged)


@pytest.fixture
def stage(stores: Stores, staged: Staged) -> Callable[..., Note]:
    """`stage(step, …)`: the part of one rank, in the far store too where it is `stored`."""

    def run(step: int, stored: bool = True, gang: int = 1, rank: int = 0, world: int = 1) -> Note:
        wanted = plan({"weights": np.full(8, step), "best": {}}, {}, rank, world)
        buffer = memoryview(bytearray(wanted.nbytes))
        wanted.copy_into(buffer)
        extra = {"metrics": {}, "best": None}
        message = {"gang": gang, "step": step, "rank": rank, "slot": "a", "index": wanted.index}
        note = staged.stage("run-a", {**message, "extra": extra}, {"a": buffer})
        if stored:
            stores.blobs.put(staged.blobs.get(note.blob))
            staged.stored("run-a", note.name)
        return note

    return run


def opened(stores: Stores, owner: Owner) -> TrainingWork:
    work = TrainingWork(Run("run-a", "base", "train", "running", SPEC))
    work.open(owner)  # type: ignore[arg-type]
    return work


def committed(stores: Stores) -> list[int]:
    with stores.meta.read() as db:
        return [row.step for row in db.checkpoints("run-a")]


def told(note: Note) -> dict[str, Any]:
    """What the checkpoint writer says when a part is stored."""
    return {"gang": note.name.gang, "step": note.step, "rank": note.rank, "staged": True}


def landed(work: TrainingWork, stores: Stores, step: int) -> None:
    until(f"step {step}", lambda: (work.tick([]), step in committed(stores))[1], 20)


def test_it_is_committed_when_all_parts_are_stored_and_once(stores, staged, stage) -> None:
    work = opened(stores, Owner(stores))
    stage(7, world=2)
    other = stage(7, stored=False, rank=1, world=2)
    work.on_sidecar("checkpoint", told(other))
    assert committed(stores) == []
    stores.blobs.put(staged.blobs.get(other.blob))
    staged.stored("run-a", other.name)
    for _ in range(2):
        work.on_sidecar("checkpoint", told(other))
        landed(work, stores, 7)
    with stores.meta.read() as db:
        events = [e.kind for e in db.events(subject="run/run-a")]
    assert events.count("checkpoint.committed") == 1
    assert staged.is_empty("run-a")


def straight(stores: Stores, staged: Staged, note: Note) -> dict[str, Any]:
    """What the writer says of this part where the disk had no room: it is in the store alone."""
    stores.blobs.put(staged.blobs.get(note.blob))
    staged.drop("run-a", [note.name])
    return {**note.body, "slot": "a"}


def test_a_part_that_found_no_room_on_the_disk_and_one_that_did_are_one_checkpoint(
    stores, staged, stage
) -> None:
    work = opened(stores, Owner(stores))
    on_disk = stage(7, world=2)
    work.on_sidecar("checkpoint", straight(stores, staged, stage(7, rank=1, world=2)))
    work.on_sidecar("checkpoint", told(on_disk))
    landed(work, stores, 7)
    half = stage(8, world=2)  # of which the other half is lost with whoever had it
    work.on_sidecar("checkpoint", told(half))
    for rank in (0, 1):
        part = stage(9, rank=rank, world=2)
        work.on_sidecar("checkpoint", straight(stores, staged, part))
    landed(work, stores, 9)
    assert committed(stores) == [9, 7]
    assert staged.is_empty("run-a") and not work.waits(None), "nobody waits for half of 8"


def test_a_part_that_could_not_be_written_takes_the_others_with_it(stores, staged, stage) -> None:
    work = opened(stores, Owner(stores))
    note = stage(7, world=2)
    error = Unavailable("the store is gone", "Wait.").as_dict()
    body = {"gang": 1, "step": 7, "rank": 1, "slot": "a", "extra": {}, "error": error}
    work.on_sidecar("checkpoint", body)
    assert not staged.has("run-a", note.name) and not work.waits(None)


def test_the_next_controller_commits_what_is_stored_also_when_nobody_tells_it(
    stores, staged, stage
) -> None:
    Owner(stores)
    stage(7)
    stage(9)
    work = opened(stores, Owner(stores))
    landed(work, stores, 9)
    assert committed(stores) == [9, 7]


def test_who_lost_the_lease_commits_nothing_and_leaves_it_to_who_has_it(
    stores, staged, stage
) -> None:
    old = opened(stores, Owner(stores))
    new = Owner(stores)
    note = stage(7)
    before = rows(stores)
    with pytest.raises(LeaseLost):
        old.on_sidecar("checkpoint", told(note))
        until("a try", lambda: old.tick([]), 20)
    assert rows(stores) == before
    landed(opened(stores, new), stores, 7)


def test_what_a_stale_writer_brings_after_the_next_gang_has_restored_becomes_no_checkpoint(
    stores, staged, stage
) -> None:
    owner = Owner(stores)
    work = opened(stores, owner)
    stage(5, stored=False)
    owner.attempt = 2
    work.start(failures=0)
    chosen = work.on_call(Call(0, 1, "restore", {}))
    assert (chosen["from"], chosen["step"]) == ("disk", 5)  # type: ignore[index]
    late = stage(7, gang=1)
    before = rows(stores)
    work.on_sidecar("checkpoint", told(late))
    until("the end of it", lambda: (work.tick([]), not staged.has("run-a", late.name))[1], 20)
    assert rows(stores) == before


def test_what_was_on_the_way_is_committed_after_the_next_gang_went_on_from_it(
    stores, staged, stage
) -> None:
    owner = Owner(stores)
    work = opened(stores, owner)
    note = stage(5, stored=False)
    half = stage(7, stored=False, world=2)
    owner.attempt = 2
    work.start(failures=0)
    work.on_call(Call(0, 1, "restore", {}))
    assert not staged.has("run-a", half.name), "a part of a step that no gang will go on from"
    stores.blobs.put(staged.blobs.get(note.blob))
    staged.stored("run-a", note.name)
    work.on_sidecar("checkpoint", told(note))
    landed(work, stores, 5)
    assert not work.waits(None)


def test_a_part_that_changed_on_this_disk_is_not_gone_on_from(stores, staged, stage) -> None:
    owner = Owner(stores)
    work = opened(stores, owner)
    work.on_sidecar("checkpoint", told(stage(5)))
    landed(work, stores, 5)
    path = staged.blobs.path(stage(7, stored=False).blob)
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    owner.attempt = 2
    work.start(failures=0)
    assert work.on_call(Call(0, 1, "restore", {}))["step"] == 5  # type: ignore[index]
    assert staged.is_empty("run-a")


def test_the_end_waits_while_a_part_is_on_its_way_and_not_for_ever(stores, staged, stage) -> None:
    work = opened(stores, Owner(stores))
    assert not work.waits(None)
    stage(7, stored=False)
    assert work.waits(None)
    again = opened(stores, Owner(stores))
    assert again.waits(30.0)
    assert not opened(stores, Owner(stores)).waits(0.0)
    assert not staged.is_empty("run-a"), "the next start finishes it"
