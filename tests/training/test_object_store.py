"""Checkpoints, packages and data in an object store: killed and resumed, the weights are equal."""

import signal

import pytest

from penstock.blobs import open_blobs
from penstock.home.gc import collect_garbage

pytestmark = [
    pytest.mark.torch,
    pytest.mark.faults,
    pytest.mark.s3,
    pytest.mark.timeout(240),
]

LOAD = """
import numpy as np
import penstock as ps

model = ps.load("points")
print("SHAPE", model(np.zeros((3, 6), "float32")).shape, "BY", model.runtime)
"""


@pytest.mark.long
def test_a_run_on_an_object_store_is_killed_resumed_published_and_loaded(
    made, s3, dice, undisturbed
):
    project = made(blobs=s3)
    script = project.start("run", "2")
    step = dice.randrange(10, 40) // 10 * 10
    project.until(f"step {step}", lambda: project.committed("run") >= step, 120)
    victim = dice.choice(project.until("the ranks", lambda: project.pids("run", "rank")))
    project.signal(victim, signal.SIGKILL)
    out, _ = script.communicate(timeout=180)
    assert script.returncode == 0, out
    run = project.newest("run")
    assert (run.state, run.step) == ("finished", 80)
    assert run.result["weights"] == undisturbed(2)
    assert not (project.home / "blobs").exists(), "nothing is written beside the store"
    with project.stores() as stores:
        assert collect_garbage(stores, grace_seconds=0).condemned >= 0
        with stores.meta.read() as db:
            kept = db.checkpoints(run.id)
        assert kept and all(stores.blobs.exists(each.digest) for each in kept)
    assert sum(1 for _ in open_blobs(s3).list()) > len(kept)
    (project.folder / "train.py").write_text(LOAD)
    assert "SHAPE (3, 2)" in project.run()
