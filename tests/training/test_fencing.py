"""Damage is routed around, and whoever lost its lease changes nothing any more."""

import json
import os
import signal
import time

import pytest

from penstock.jobs import control
from penstock.records import Attempt

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(120)]


def newest_checkpoint(project):
    with project.stores() as stores, stores.meta.read() as db:
        return db.checkpoints(project.newest("run").id)[0]


def flip_a_bit(project, digest):
    with project.stores() as stores:
        path = stores.blobs.path(digest)
    path.chmod(0o644)
    with path.open("r+b") as blob:
        blob.seek(path.stat().st_size // 2)
        byte = blob.read(1)[0]
        blob.seek(-1, os.SEEK_CUR)
        blob.write(bytes([byte ^ 1]))


@pytest.mark.long
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(project, undisturbed):
    script = project.start("run", "2")
    project.until("step 30", lambda: project.committed("run") >= 30)
    agent = project.pids("run", "agent")
    ranks = project.pids("run", "rank")
    for pid in ranks:  # nothing newer comes while the newest is damaged
        project.signal(pid, signal.SIGSTOP)
    project.until("the persisting of what was handed over", lambda: settled(project))
    newest = newest_checkpoint(project)
    with project.stores() as stores:
        parts = json.loads(bytes(stores.blobs.get(newest.digest)))["parts"]
    flip_a_bit(project, parts[0]["blob"])
    for pid in ranks:
        project.signal(pid, signal.SIGKILL)
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 0, out
    assert project.pids("run", "agent") == [] and agent
    [damage] = project.events("run", "checkpoint.damaged")
    assert damage["step"] == newest.step
    assert damage["fell_back_to"] == newest.step - 10
    assert damage["chunk"] is not None and damage["tensors"]
    assert f"checkpoint {newest.step}" in out and "chunk" in out
    assert project.newest("run").result["weights"] == undisturbed(2)


def settled(project):
    """No checkpoint is on its way: the newest stays the newest over a few looks."""
    seen = {newest_checkpoint(project).step for _ in range(20)}
    return len(seen) == 1


def taken_over(project, generation):
    """The run's generation when it is a newer one."""
    with project.stores() as stores, stores.meta.read() as db:
        lease = db.find_lease(f"run/{project.newest('run').id}")
    return lease.generation if lease and lease.generation > generation else None


def newest_generation(project):
    return newest_checkpoint(project).generation


def test_a_controller_that_slept_past_its_lease_changes_nothing(made, undisturbed):
    project = made(lease_seconds=1)
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10)
    [sleeper] = project.pids("run", "controller")
    run = project.newest("run")
    before = taken_over(project, 0)
    project.signal(sleeper, signal.SIGSTOP)
    with project.stores() as stores:
        project.until("the lease's end", lambda: expired(stores, run))
        second = control.start_controller(stores, run)
        lease = project.until("the take-over", lambda: taken_over(project, before))
        project.until("a checkpoint of the new one", lambda: newest_generation(project) == lease)
    project.signal(sleeper, signal.SIGCONT)
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 0, out
    assert second.wait(20) == 0
    log = (project.home / "runs" / run.id / "logs" / "controller.log").read_text()
    assert f'"code": "lease-lost", "pid": {sleeper}' in log
    ended = project.newest("run")
    assert ended.state == "finished" and ended.result["weights"] == undisturbed(2)
    with project.stores() as stores, stores.meta.read() as db:
        rows = db.checkpoints(run.id)
        attempts = db.attempts(run.id)
    assert max(row.generation for row in rows) == lease
    assert len(attempts) == 1  # the gang never noticed


def expired(stores, run):
    with stores.meta.read() as db:
        lease = db.find_lease(f"run/{run.id}")
        return lease is not None and lease.expires_at < db.now()


def test_an_attempt_that_was_opened_and_never_started_is_not_waited_for(project, undisturbed):
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10)
    run = project.newest("run")
    [agent], [controller] = project.pids("run", "agent"), project.pids("run", "controller")
    project.signal(agent, signal.SIGSTOP)
    project.signal(controller, signal.SIGKILL)
    with project.stores() as stores, stores.meta.write() as tx:
        last = tx.attempts(run.id)[-1]
        tx.add_attempt(Attempt(run.id, last.number + 1, last.generation, tx.now(), 10))
    project.signal(agent, signal.SIGCONT)
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 0, out
    assert project.newest("run").result["weights"] == undisturbed(2)
    causes = [body["cause"] for body in project.events("run", "attempt.ended")]
    assert causes == ["interrupted", "finished"]


def test_a_controller_that_sleeps_is_killed_all_the_same(project):
    project.run("run", "2", "detach")
    project.until("step 10", lambda: project.committed("run") >= 10)
    [controller] = project.pids("run", "controller")
    project.signal(controller, signal.SIGSTOP)
    with project.stores() as stores:
        control.kill(stores, project.newest("run").id)
    project.until("the end", lambda: project.newest("run").state == "stopped")


@pytest.mark.long
@pytest.mark.parametrize("who", ["agent", "image", "sidecar"])
def test_one_of_a_run_that_slept_past_the_lease_goes_on_where_it_was(made, undisturbed, who):
    """Its controller is awake and renews the lease: nobody takes over, and nothing is decided."""
    project = made(lease_seconds=1)
    project.edit(("pause: float = 0.01", "pause: float = 0.05"))
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10)
    [sleeper] = project.pids("run", who)
    project.signal(sleeper, signal.SIGSTOP)
    time.sleep(3)
    project.signal(sleeper, signal.SIGCONT)
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 0, out
    assert project.newest("run").result["weights"] == undisturbed(2)
    causes = [body["cause"] for body in project.events("run", "attempt.ended")]
    assert causes == ["finished"]
    project.nothing_left()


@pytest.mark.long
def test_a_whole_run_that_slept_past_its_lease_publishes_nothing(made, undisturbed):
    """Ranks, agent, image and controller at once, as a machine that is suspended: another
    controller takes over, and whoever wakes then changes nothing."""
    project = made(lease_seconds=1)
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10)
    roles = ("controller", "agent", "image", "sidecar", "rank")
    sleepers = project.pids("run", *roles)
    run, before = project.newest("run"), taken_over(project, 0)
    for pid in sleepers:
        project.signal(pid, signal.SIGSTOP)
    with project.stores() as stores:
        project.until("the lease's end", lambda: expired(stores, run))
        second = control.start_controller(stores, run)
        lease = project.until("the take-over", lambda: taken_over(project, before))
        project.until("a checkpoint of the new one", lambda: newest_generation(project) >= lease)
    for pid in sleepers:
        project.signal(pid, signal.SIGCONT)
    out, _ = script.communicate(timeout=90)
    assert script.returncode == 0, out
    assert second.wait(20) == 0
    ended = project.newest("run")
    assert ended.state == "finished" and ended.result["weights"] == undisturbed(2)
    with project.stores() as stores, stores.meta.read() as db:
        assert [model.version for model in db.versions("model", "points")] == [1]
        assert {row.generation for row in db.checkpoints(run.id) if row.step > 20} >= {lease}
