"""Full disks and deaths while a checkpoint is written: nothing half-made is ever visible."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

import penstock.checkpoints as ck
from penstock.base.errors import DiskFull, from_dict
from penstock.blobs import Blobs, open_blobs


@pytest.mark.root
def test_a_full_disk_leaves_nothing_visible_and_costs_only_the_checkpoint(
    small_disk: Path, fill, save
) -> None:
    blobs = open_blobs(f"file://{small_disk}/blobs")
    small = save(blobs, {"w": torch.ones(100)}, [{}], step=1)
    visible = sorted(stat.digest for stat in blobs.list())
    plan = ck.plan({"w": torch.randn(200_000)}, {}, 0, 1)
    buffer = fill(plan)
    with pytest.raises(DiskFull):
        ck.persist(buffer, plan.index, blobs)
    message = {"slot": "a", "step": 2, "rank": 0, "index": plan.index}
    answer = ck.handle(message, {"a": buffer}, blobs)
    assert isinstance(from_dict(answer["error"]), DiskFull)
    assert sorted(stat.digest for stat in blobs.list()) == visible
    assert ck.newest_whole([small], blobs).checkpoint == small
    assert ck.persist(*_tiny(fill), blobs)["nbytes"] > 0  # and there is room for what fits


def _tiny(fill):
    plan = ck.plan({"w": torch.ones(5)}, {}, 0, 1)
    return fill(plan), plan.index


class Dying:
    """A store whose writer is killed when it asks for the n-th chunk; 0 is before the first."""

    def __init__(self, blobs: Blobs, deadly: int) -> None:
        self._blobs, self._deadly = blobs, deadly

    def put(self, chunks, mend=False):
        return self._blobs.put(self._until_death(chunks), mend=mend)

    def _until_death(self, chunks):
        for number, chunk in enumerate(chunks):
            if number == self._deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            yield chunk
        os.kill(os.getpid(), signal.SIGKILL)


def _forked(work) -> int:
    """Run `work` in a child, which must die of SIGKILL or get through; its wait status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(70)
    return os.waitpid(child, 0)[1]


@pytest.mark.faults
def test_a_writer_killed_at_any_chunk_leaves_nothing_visible(
    blobs: Blobs, fill, save, trained, chance: random.Random
) -> None:
    whole = save(blobs, trained(1), [{}], step=1)
    visible = sorted(stat.digest for stat in blobs.list())
    plan = ck.plan(trained(2), {}, 0, 1)
    buffer = fill(plan)
    chunks = len(ck.persist(buffer, plan.index, open_blobs("memory://"))["chunks"])
    for deadly in {0, chunks, *chance.sample(range(chunks), 4)}:
        status = _forked(lambda n=deadly: ck.persist(buffer, plan.index, Dying(blobs, n)))
        assert os.WTERMSIG(status) == signal.SIGKILL
        assert sorted(stat.digest for stat in blobs.list()) == visible
    assert ck.newest_whole([whole], blobs).checkpoint == whole


@pytest.mark.faults
def test_whatever_a_killed_writer_made_visible_is_whole(
    blobs: Blobs, fill, chance: random.Random
) -> None:
    """Killed at moments of its own, flushing and renaming included."""

    def write_for_ever() -> None:
        while True:
            for count in range(1, 60):
                buffer[:8] = (count * 1_000_003 + os.getpid()).to_bytes(8, "little")
                ck.persist(buffer, plan.index, blobs)

    plan = ck.plan({"w": torch.zeros(20_000)}, {}, 0, 1)
    buffer = fill(plan)
    for _ in range(10):
        child = os.fork()
        if child == 0:
            write_for_ever()
        time.sleep(chance.uniform(0.0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for stat in blobs.list():
            assert stat.size == plan.nbytes
            blobs.verify(stat.digest)
    again = open_blobs(blobs.url)  # the next opening sweeps what the dead left
    assert not list((Path(blobs.url.removeprefix("file://")) / "tmp").iterdir())
    assert again.exists(ck.persist(buffer, plan.index, again)["blob"])
