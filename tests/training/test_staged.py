"""Checkpoints go to this machine's disk and then to the object store: what a store that is away, a
death and a damaged copy cost. The training waits for none of it."""

import signal

import pytest
from tests.blobs.conftest import Proxy
from tests.training.conftest import STEPS

from penstock.checkpoints import Staged, read_manifest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.faults,
    pytest.mark.s3,
    pytest.mark.long,
    pytest.mark.timeout(300),
]


@pytest.fixture
def store(moto):
    """An S3 server that can go away and come back; it has seen what it was asked."""
    proxy = Proxy(moto)
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture
def project(made, store, bucket):
    found = made(
        blobs=f"s3://{bucket}/p?endpoint={store.url}&region=us-east-1&deadline=3&timeout=5"
    )
    found.edit(("pause: float = 0.01", "pause: float = 0.1"))
    return found


def resumed(project):
    return [(body["from"], body["step"]) for body in project.events("run", "attempt.resumed")]


def parts(project):
    """Digests of the parts of all checkpoints that are there, newest first."""
    run = project.newest("run")
    with project.stores() as stores:
        with stores.meta.read() as db:
            rows = db.checkpoints(run.id)
        return [blob for row in rows for blob in read_manifest(stores.blobs, row.digest).blobs]


def fetched(store, digests):
    """How often a part was asked for."""
    names = [digest.split(":", 1)[-1][2:] for digest in digests]
    return sum(
        seen.method == "GET" and any(name in seen.path for name in names) for seen in store.seen
    )


def staged(project):
    return Staged(project.home / "cache" / "checkpoints")


def steps_on_disk(project):
    found = staged(project).whole(project.newest("run").id)
    return [notes[0].step for notes in found]


def finished(project, script, undisturbed):
    out, _ = script.communicate(timeout=180)
    assert script.returncode == 0, out
    assert project.committed("run") == STEPS
    assert project.newest("run").result["weights"] == undisturbed(2)
    assert steps_on_disk(project) == []


def test_a_store_that_is_away_delays_commits_and_a_dead_agent_costs_nothing_that_is_on_the_disk(
    project, store, undisturbed
):
    script = project.start("run", "2")
    project.until("a checkpoint", lambda: project.committed("run") >= 10, 120)
    store.stop()
    project.until("the next steps", lambda: 50 in steps_on_disk(project), 60)
    delayed = project.until("a word", lambda: project.events("run", "checkpoint.delayed"))
    assert delayed[0]["error"]["code"] == "store-unreachable"
    committed, before = project.committed("run"), len(store.seen)
    assert committed < 50, "nothing is committed while the store is away"
    project.kill("run", "agent")  # and with it what is in memory
    store.start()
    project.until("the next attempt", lambda: resumed(project), 60)
    (found,) = resumed(project)
    assert found[0] == "disk" and found[1] >= 50
    finished(project, script, undisturbed)
    order = [body["step"] for body in project.events("run", "checkpoint.committed")]
    assert order == sorted(order) and set(order) >= set(range(10, STEPS + 1, 10))
    store.seen[:before] = []
    assert fetched(store, parts(project)) == 0


def test_everything_dies_while_the_store_is_away_and_the_script_goes_on_from_the_disk(
    project, store, undisturbed
):
    script = project.start("run", "2")
    project.until("a checkpoint", lambda: project.committed("run") >= 10, 120)
    store.stop()
    project.until("the next steps", lambda: 40 in steps_on_disk(project), 60)
    project.signal(script.pid, signal.SIGKILL)
    project.kill("run", "controller", "agent")
    project.nothing_left()
    store.start()
    again = project.start("run", "2")
    finished(project, again, undisturbed)
    (found,) = resumed(project)
    assert found[0] == "disk" and found[1] >= 40


def test_a_damaged_copy_is_replaced_by_the_store_and_the_writers_death_costs_nothing(
    project, store, undisturbed
):
    script = project.start("run", "2")
    project.until("a checkpoint", lambda: project.committed("run") >= 20, 120)
    project.kill("run", "sidecar")
    project.until("the next", lambda: project.committed("run") >= 30, 120)
    project.kill("run", "agent")
    project.until("an attempt", lambda: len(resumed(project)) == 1, 60)
    assert fetched(store, parts(project)) == 0
    project.until("the next", lambda: project.committed("run") >= resumed(project)[0][1] + 10, 60)
    for blob in parts(project)[:2]:
        path = staged(project).blobs.path(blob)
        path.chmod(0o644)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    project.kill("run", "agent")
    finished(project, script, undisturbed)
    assert [tier for tier, _ in resumed(project)] == ["disk", "store"]
    assert not project.events("run", "checkpoint.damaged")


def test_the_end_of_a_run_waits_for_its_last_checkpoint_and_a_kill_leaves_it_to_the_next_start(
    project, store, undisturbed
):
    script = project.start("run", "2")
    project.until("a checkpoint", lambda: project.committed("run") >= 10, 120)
    store.stop()
    project.until("the next steps", lambda: 30 in steps_on_disk(project), 60)
    project.signal(script.pid, signal.SIGINT)
    project.until("the wait", lambda: project.events("run", "checkpoints.awaited"), 60)
    assert project.newest("run").state == "stopping"
    project.signal(script.pid, signal.SIGINT)
    script.communicate(timeout=60)
    assert project.newest("run").state == "stopped"
    left = steps_on_disk(project)[-1]
    store.start()
    finished(project, project.start("run", "2"), undisturbed)
    assert resumed(project) == [("disk", left)]
