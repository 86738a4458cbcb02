"""Who lost the lease commits nothing, and who is of an older gang is not listened to: one test for
each kind of commit. With real processes: test_fencing.py."""

from __future__ import annotations

import queue
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penstock.base.errors import LeaseLost
from penstock.base.settings import load_settings
from penstock.checkpoints import persist, plan
from penstock.jobs.controller import Controller
from penstock.jobs.facts import Facts
from penstock.jobs.holding import Holding
from penstock.jobs.stores import Stores, open_stores
from penstock.jobs.work import Call
from penstock.records import Attempt, Run
from penstock.signals import Emitter, read_scalars, reduce_scalars, seal
from penstock.training.inline import Inline
from penstock.training.work import TrainingWork

SPEC: dict[str, Any] = {
    "entry": "train:fit", "config": {"type": None, "value": None}, "world_size": 1, "workers": 1,
    "seed": 0, "threads": 1, "every_steps": 1, "every_seconds": None, "every": 1,
    "elastic": {"low": 1, "high": 2},
}  # fmt: skip


@pytest.fixture
def stores(tmp_path: Any) -> Iterator[Stores]:
    with open_stores(load_settings(tmp_path, {}, home=tmp_path / "home")) as found:
        with found.meta.write() as tx:
            tx.add_run(Run("run-a", "base", "train", "running", SPEC))
        yield found


class Owner:
    """What a work may do, of a controller that held the lease once."""

    def __init__(self, stores: Stores) -> None:
        self.stores, self.run_id, self.attempt = stores, "run-a", 1
        self.holding = Holding(stores, self.run_id)
        self.holding.take()
        self.commit = self.holding.commit

    @property
    def generation(self) -> int:
        return self.holding.generation

    def event(self, kind: str, body: dict[str, Any]) -> None:
        self.commit(lambda tx: tx.event(f"run/{self.run_id}", kind, body))

    def reply(self, call: Call, payload: dict[str, Any]) -> None:
        raise AssertionError("nobody is answered")


def saved(stores: Stores, step: int, gang: int = 1) -> dict[str, Any]:
    """What the checkpoint writer says of a part that it stored."""
    wanted = plan({"weights": np.arange(8.0), "best": {}}, {}, 0, 1)
    buffer = memoryview(bytearray(wanted.nbytes))
    wanted.copy_into(buffer)
    part = persist(buffer, wanted.index, stores.blobs)
    return {
        "gang": gang, "step": step, "rank": 0, "part": part,
        "extra": {"metrics": {}, "best": None},
    }  # fmt: skip


def rows(stores: Stores) -> list[str]:
    """All of the meta store."""
    with sqlite3.connect(stores.layout.root / "meta.db") as database:
        return list(database.iterdump())


PUBLISHED = {"name": "toy", "digest": "sha256:" + "0" * 64, "refs": [], "summary": {}}
UNHEALTHY = {"error": {"code": "gradients-unhealthy", "facts": {"first": 3, "until": 4}}}
COMMITS: dict[str, Any] = {
    "a checkpoint": lambda work, stores: work.on_sidecar("checkpoint", saved(stores, 7)),
    "a checkpoint's failure": lambda work, _: work.on_sidecar(
        "checkpoint", {"gang": 1, "step": 7, "rank": 0, "extra": {}, "error": {"what": "no room"}}
    ),
    "a model": lambda work, _: work.on_call(Call(0, 1, "publish", PUBLISHED)),
    "what a name means": lambda work, _: work.on_call(Call(0, 1, "data", {"reference": "x"})),
    "metrics": lambda work, _: work.close(),
    "the number of steps": lambda work, _: work.on_tell(0, "total", {"steps": 9}),
    "a window": lambda work, _: work.on_tell(0, "raised", UNHEALTHY),
    "another size": lambda work, _: work.start(failures=2),
    "what came after a restore": lambda work, _: work.on_tell(0, "resumed", {"step": 3}),
}


@pytest.mark.parametrize("what", COMMITS)
def test_who_lost_the_lease_commits_nothing(stores: Stores, what: str) -> None:
    old = Owner(stores)
    work = TrainingWork(Run("run-a", "base", "train", "running", {**SPEC, "world_size": 2}))
    work._world = 1
    work.open(old)  # type: ignore[arg-type]
    with closing(Emitter(stores.layout.signals("run-a"), "run-a", 0, 1)) as emitter:
        emitter.scalars(1, {"loss": 1.0})
    if what == "another size":
        work._world = 2
    new = Owner(stores)
    assert new.generation == old.generation + 1
    before = rows(stores)
    with pytest.raises(LeaseLost):
        COMMITS[what](work, stores)
    assert rows(stores) == before
    work._forwarding = None


def test_a_run_in_a_script_that_lost_the_lease_ends_nothing(stores: Stores) -> None:
    with stores.meta.read() as db:
        inline = Inline(stores, db.get_run("run-a"), lambda line: None)
    inline._holding.take()
    inline.generation = inline._holding.generation
    inline._work.open(inline)
    inline._begin()
    Owner(stores)
    before = rows(stores)
    with pytest.raises(LeaseLost):
        inline._end("finished", "finished", result={"steps": 3})
    with pytest.raises(LeaseLost):
        inline.commit(lambda tx: tx.add_attempt(Attempt("run-a", 9, 1, tx.now(), 0)))
    assert rows(stores) == before


# an older gang


class Heard:
    """A work that notes what reaches it."""

    shape = "gang"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def on_call(self, call: Call) -> dict[str, Any]:
        self.calls.append(call.kind)
        return {}

    def on_handed(self, rank: int, step: int) -> None:
        self.calls.append("handed")

    def on_tell(self, rank: int, kind: str, payload: dict[str, Any]) -> None:
        self.calls.append(kind)


@pytest.mark.parametrize("gang", [1, 2])
def test_a_rank_of_an_older_gang_is_not_listened_to(stores: Stores, gang: int) -> None:
    """It woke after its gang was replaced: neither questions, reports, models nor parts count."""
    controller = Controller(stores, "run-a", Heard())  # type: ignore[arg-type]
    controller.attempt, controller._facts = 2, Facts(2, 1)
    controller._agent = SimpleNamespace(send=lambda **_: None, inbox=queue.Queue())  # type: ignore[assignment]
    raised = {"step": 3, "error": {"what": "no"}}
    told = {"gang": gang, "rank": 0, "kind": "raised", "payload": raised}
    for message in (
        {"call": {"gang": gang, "rank": 0, "id": 1, "kind": "publish", "payload": PUBLISHED}},
        {"handed": {"gang": gang, "rank": 0, "step": 7}},
        {"tell": told},
        {"tell": {**told, "kind": "finished", "payload": {"step": 9}}},
        {"exited": {"gang": gang, "rank": 0, "pid": 7, "told": True, "seen_at": 0.0,
                    "signal": None, "code": 0}},
        {"gone": {"gang": gang}},
    ):  # fmt: skip
        controller._hear(message)
    expected = ["publish", "handed", "raised", "finished"] if gang == 2 else []
    assert controller._work.calls == expected  # type: ignore[attr-defined]
    facts = controller._facts
    assert (bool(facts.raised), bool(facts.results), facts.gone) == (gang == 2,) * 3


def test_a_part_that_comes_when_the_next_gang_has_restored_becomes_no_checkpoint(
    stores: Stores,
) -> None:
    owner = Owner(stores)
    work = TrainingWork(Run("run-a", "base", "train", "running", SPEC))
    work.open(owner)  # type: ignore[arg-type]
    work.on_sidecar("checkpoint", saved(stores, 5))
    owner.attempt = 2
    work.start(failures=0)
    assert work.on_call(Call(0, 1, "restore", {}))["step"] == 5  # type: ignore[index]
    before = rows(stores)
    work.on_sidecar("checkpoint", saved(stores, 7, gang=1))
    assert rows(stores) == before


def test_scalars_of_an_older_gang_do_not_count_where_a_newer_one_told_the_step(
    stores: Stores,
) -> None:
    """Whichever was written last."""
    folder = stores.layout.signals("run-a")
    for generation, value in ((2, 2.0), (1, 1.0)):
        with closing(Emitter(folder, "run-a", 0, generation)) as emitter:
            for step in range(1, 4):
                emitter.scalars(step, {"loss": value * step})
    told = reduce_scalars(read_scalars(seal(folder, stores.blobs), stores.blobs))
    values = {row["step"]: row["value"] for row in told.to_pylist()}
    assert values == {1: 2.0, 2: 4.0, 3: 6.0}
