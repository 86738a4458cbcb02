"""A gang on several machines, here played by agents with folders of their own that are reached over
the network: whatever dies, the weights are those of a gang on one machine."""

import signal
from pathlib import Path

import pytest
from tests.training.engines import on_hosts, processes

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(180)]

SLOWLY = ("pause: float = 0.01", "pause: float = 0.05")


@pytest.fixture
def hosts(made):
    return on_hosts(made, "hosts:2")


def a_process(project, *roles):
    return project.until(f"a {roles}", lambda: processes(project.nodes, *roles))[0]


@pytest.mark.long
def test_a_host_that_is_silent_is_lost_and_comes_to_nothing(hosts, undisturbed):
    """It is stopped for longer than its controller waits: what it does when it wakes is in vain."""
    hosts.edit(SLOWLY)
    script = hosts.start("run", "2")
    hosts.until("step 10", lambda: hosts.committed("run") >= 10)
    folder, agent = a_process(hosts, "agent")
    hosts.signal(agent["pid"], signal.SIGSTOP)
    hosts.until("a loss", lambda: hosts.events("run", "node.lost"))
    hosts.signal(agent["pid"], signal.SIGCONT)
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    run = hosts.newest("run")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2)
    assert not Path(folder).exists()
    hosts.nothing_left()


def test_a_lost_host_shrinks_an_elastic_gang_at_once_and_another_one_grows_it(made):
    """Every sample is seen once all the same: with `micro_batches` the steps are those of two."""
    project = on_hosts(made, "hosts:2x1")
    project.edit(
        ("pause: float = 0.01", "pause: float = 0.1"),
        ("epochs: int = 10", "epochs: int = 40"),
        ("workers=int(workers)", "workers=(1, 2)"),
        ("nn.BatchNorm1d(32)", "nn.Identity()"),
    )
    script = project.start("run", "2")
    project.until("step 10", lambda: project.committed("run") >= 10)
    _, agent = a_process(project, "agent")
    project.signal(agent["pid"], signal.SIGKILL)
    project.until("a loss", lambda: project.events("run", "node.lost"))
    project.until("growth", lambda: len(project.events("run", "gang.resized")) >= 2)
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    sizes = [(body["from"], body["to"]) for body in project.events("run", "gang.resized")]
    assert sizes == [(2, 1), (1, 2)]
    run = project.newest("run")
    assert run.state == "finished" and run.step == 320
    project.nothing_left()


@pytest.mark.long
def test_a_spare_stands_by_and_takes_over(made, undisturbed):
    project = on_hosts(made, "hosts:2x1", cluster_spares=1)
    project.edit(SLOWLY)
    script = project.start("run", "1")
    project.until("step 10", lambda: project.committed("run") >= 10)
    project.until("a spare", lambda: len(processes(project.nodes, "image")) == 2)
    ((busy, _),) = processes(project.nodes, "rank")
    ((spare, _),) = [each for each in processes(project.nodes, "agent") if each[0] != busy]
    ((_, agent),) = [each for each in processes(project.nodes, "agent") if each[0] == busy]
    project.signal(agent["pid"], signal.SIGKILL)
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    run = project.newest("run")
    assert run.state == "finished" and run.result["weights"] == undisturbed(1)
    started = project.events("run", "gang.started")
    assert [each["where"]["0"]["node"] for each in started] == [busy.name, spare.name]
    project.nothing_left()
