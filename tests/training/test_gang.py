"""What a gang is promised on every engine: its ranks are processes of this machine, or of agents
that are reached over the network, or on the nodes of a Ray cluster. The tests are the same."""

import signal

import pytest
from tests.training.engines import nothing_is_left, on_cluster, on_hosts, processes

from penstock.jobs import control, logs

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(240)]

SLOWLY = ("pause: float = 0.01", "pause: float = 0.1")
STEP = "time.sleep(config.pause)"


class Gang:
    """A project of two ranks, and where their processes are."""

    def __init__(self, project, cluster=None):
        self.project, self._cluster = project, cluster

    def pids(self, role):
        nodes = getattr(self.project, "nodes", None)
        if nodes is None or role in ("controller", "keeper"):
            return self.project.pids("run", role)
        return [row["pid"] for _, row in processes(nodes, role)]

    def kill(self, role):
        self.project.until(f"a {role}", lambda: self.pids(role))
        self.project.signal(self.pids(role)[0], signal.SIGKILL)

    def begun(self):
        """The script of a slow run that has a checkpoint."""
        self.project.edit(SLOWLY)
        script = self.project.start("run", "2")
        self.until_step(10)
        return script

    def attempts(self):
        return len(self.project.events("run", "attempt.started"))

    def until_step(self, step):
        self.project.until(f"step {step}", lambda: self.project.committed("run") >= step, 120)

    def nothing_is_left(self):
        if hasattr(self.project, "nodes"):
            nothing_is_left(self.project, self._cluster)
        else:
            self.project.nothing_left()


LONG = pytest.mark.long


@pytest.fixture(params=["processes", "hosts:2", pytest.param("ray", marks=pytest.mark.ray)])
def gang(request, made, tmp_path):
    if request.param == "ray":
        cluster, nodes = request.getfixturevalue("cluster"), tmp_path / "nodes"
        for _ in range(2):
            cluster.add(PENSTOCK_NODE_HOME=str(nodes))
        project = on_cluster(made, cluster)
        project.nodes = nodes
        return Gang(project, cluster)
    return Gang(made() if request.param == "processes" else on_hosts(made, request.param))


def test_the_weights_do_not_depend_on_it_and_what_ranks_say_is_read_at_home(gang, undisturbed):
    project = gang.project
    project.edit((STEP, f'print("hello from", run.rank)\n        {STEP}'))
    out = project.run("run", "2")
    run = project.newest("run")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2), out
    (started,) = project.events("run", "gang.started")
    assert len(started["pids"]) == 2
    with project.stores() as stores:
        assert list(logs.follow(stores.layout, run.id, rank=1))[-1] == "hello from 1"
        said = {line.split("] ")[-1] for line in logs.follow(stores.layout, run.id)}
    assert said >= {"hello from 0", "hello from 1"}
    gang.nothing_is_left()


@LONG
def test_a_rank_an_agent_and_the_controller_die_and_no_bit_changes(gang, undisturbed):
    project = gang.project
    script = gang.begun()
    gang.kill("rank")
    project.until("a second attempt", lambda: gang.attempts() == 2)
    gang.until_step(20)
    gang.kill("agent")
    project.until("a third attempt", lambda: gang.attempts() == 3, 120)
    gang.until_step(40)
    gang.kill("controller")
    project.until("adoption", lambda: project.events("run", "controller.adopted"))
    gang.until_step(60)
    assert gang.attempts() == 3, "the death of a controller costs no step"
    for keeper in gang.pids("keeper"):  # of a controller on another machine than its agents
        project.signal(keeper, signal.SIGKILL)
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    run = project.newest("run")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2)
    gang.nothing_is_left()


@LONG
def test_a_stop_saves_and_the_same_script_goes_on(gang, undisturbed):
    project = gang.project
    script = gang.begun()
    with project.stores() as stores:
        control.stop(stores, project.newest("run").id)
    out, _ = script.communicate(timeout=60)
    stopped = project.newest("run")
    assert script.returncode == 10 and stopped.state == "stopped", out
    assert project.committed("run") == stopped.step < 80, "where it stopped is saved"
    gang.nothing_is_left()
    project.edit((SLOWLY[1], SLOWLY[0]))
    project.run("run", "2")
    assert project.newest("run").result["weights"] == undisturbed(2)
    (resumed,) = project.events("run", "attempt.resumed")
    assert resumed["step"] == stopped.step
    gang.nothing_is_left()


@LONG
def test_what_a_function_raises_is_shown_with_its_line_and_mended(gang, undisturbed):
    project = gang.project
    mean = f"if run.global_step == 24: 1 / 0\n        {STEP}"
    project.edit((STEP, mean))
    out = project.run("run", "2", code=8)
    assert "ZeroDivisionError: division by zero" in out and "train.py" in out, out
    assert "if run.global_step == 24: 1 / 0" in out
    assert project.newest("run").state == "failed"
    gang.nothing_is_left()
    project.edit((mean, STEP))
    project.run("run", "2")
    assert project.newest("run").result["weights"] == undisturbed(2)


@LONG
def test_a_script_that_is_killed_takes_its_run_along(gang, undisturbed):
    project = gang.project
    script = gang.begun()
    script.kill()
    script.wait()
    project.until("the end of the run", lambda: project.newest("run").state == "stopped")
    gang.nothing_is_left()
    project.edit((SLOWLY[1], SLOWLY[0]))
    project.run("run", "2")
    assert project.newest("run").result["weights"] == undisturbed(2)
