"""Every step once in TensorBoard, whatever dies in between; read back by TensorBoard itself."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from penstock.base.errors import Unavailable
from penstock.signals import read_scalars, reduce_scalars
from penstock.signals.tensorboard import Forwarder

pytest.importorskip("tensorboard")


def shown(target):
    """What TensorBoard shows: (name, step) -> value, each step once or the test fails."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(target), size_guidance={"scalars": 0})
    accumulator.Reload()
    found = {}
    for name in accumulator.Tags()["scalars"]:
        for event in accumulator.Scalars(name):
            assert (name, event.step) not in found
            found[name, event.step] = event.value
    return found


def reduced(folder):
    rows = reduce_scalars(read_scalars(folder)).to_pylist()
    return {(row["name"], row["step"]): row["value"] for row in rows}


@pytest.fixture
def target(tmp_path):
    return tmp_path / "tensorboard"


def test_a_step_is_written_when_every_rank_is_past_it(folder, emitter, target):
    ranks = [emitter(rank=rank) for rank in range(2)]
    with Forwarder(folder, target) as forwarder:
        for step in range(5):
            ranks[0].scalar(step, "loss", 1.0)
        assert forwarder.poll() == 0  # rank 1 has told nothing yet
        for step in range(3):
            ranks[1].scalar(step, "loss", 3.0)
        assert forwarder.poll() == 2
        assert shown(target) == {("loss", 0): 2.0, ("loss", 1): 2.0}
        assert forwarder.poll() == 0
        for step in range(3, 5):
            ranks[1].scalar(step, "loss", 3.0)
        assert forwarder.poll(final=True) == 3
    assert shown(target) == reduced(folder)


def test_what_only_one_rank_tells_does_not_wait_for_ever(folder, emitter, target):
    ranks = [emitter(rank=rank) for rank in range(2)]
    with Forwarder(folder, target) as forwarder:
        for step in range(200):
            ranks[1].scalar(step, "loss", 1.0)
            ranks[0].scalars(step, {"loss": 1.0, "lr": 0.1})
        forwarder.poll()
        assert {("lr", step) for step in range(99)} <= set(shown(target))


def test_a_replay_in_a_higher_generation_repeats_no_step(folder, emitter, target):
    def tell(generation, steps):
        ranks = [emitter(rank=rank, generation=generation) for rank in range(2)]
        for step in steps:
            for rank in ranks:
                rank.scalar(step, "loss", float(step))
        return ranks

    with Forwarder(folder, target) as forwarder:
        tell(1, range(50))
        forwarder.poll()
        tell(2, range(30, 80))  # both were killed; the checkpoint was at 30
        forwarder.poll()
    tell(3, range(60, 100))
    with Forwarder(folder, target) as forwarder:
        forwarder.poll(final=True)
    assert shown(target) == reduced(folder)
    assert len(shown(target)) == 100


def test_a_value_that_was_not_settled_comes_from_the_newest_generation(folder, emitter, target):
    with Forwarder(folder, target) as forwarder:
        emitter(generation=1).scalar(7, "loss", 1.0)
        forwarder.poll()
        emitter(generation=2).scalar(7, "loss", 2.0)
        forwarder.poll(final=True)
    assert shown(target) == {("loss", 7): 2.0}


def test_forwarders_may_come_and_go_at_random(folder, emitter, target):
    chance = random.Random(7)
    ranks = [emitter(rank=rank, segment_bytes=4096) for rank in range(3)]
    forwarder = Forwarder(folder, target)
    for step in range(200):
        for rank in ranks:
            rank.scalars(step, {"loss": float(step), "acc": float(rank.rank)})
        if chance.random() < 0.2:
            forwarder.poll()
        if chance.random() < 0.05:
            forwarder = Forwarder(folder, target)  # the old one was killed: not even closed
    forwarder.poll(final=True)
    forwarder.close()
    assert shown(target) == reduced(folder)


KILLED = """
import os, signal, sys
from pathlib import Path
from penstock.signals.tensorboard import Forwarder
forwarder = Forwarder(Path(sys.argv[1]), Path(sys.argv[2]))
count = int(sys.argv[3])
write = forwarder._append
def append(event):
    global count
    count -= 1
    if count < 0:
        forwarder._stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    write(event)
forwarder._append = append
forwarder.poll()
"""


@pytest.mark.faults
def test_a_forwarder_killed_in_the_middle_of_a_poll_repeats_and_loses_nothing(
    folder, emitter, target
):
    one = emitter()
    for step in range(40):
        one.scalar(step, "loss", float(step))
    command = [sys.executable, "-c", KILLED, str(folder), str(target), "17"]
    assert subprocess.run(command).returncode == -9
    (file,) = target.iterdir()
    with file.open("ab") as stream:
        stream.write(b"torn")
    with Forwarder(folder, target) as forwarder:
        assert forwarder.poll(final=True) == 40 - 17
    assert shown(target) == reduced(folder)


def test_a_run_without_signals_writes_no_file(folder, target):
    with Forwarder(folder, target) as forwarder:
        assert forwarder.poll(final=True) == 0
    assert not target.exists()


def test_a_target_that_cannot_be_written_is_one_clear_error_and_nothing_is_lost(
    folder, emitter, tmp_path
):
    one = emitter()
    for step in range(5):
        one.scalar(step, "loss", float(step))
    target = tmp_path / "target"
    target.write_text("in the way")
    forwarder = Forwarder(folder, target)
    with pytest.raises(Unavailable, match="target"):
        forwarder.poll()
    target.unlink()
    assert forwarder.poll(final=True) == 5
    forwarder.close()
    assert shown(target) == reduced(folder)
