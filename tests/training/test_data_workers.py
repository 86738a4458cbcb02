"""Data workers of a run: asked of the agent, forked from the image, gone with their rank."""

import signal
import textwrap

import pytest
from tests.training.conftest import PROJECT, STEPS

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(180)]

NOISY = (
    textwrap.dedent(PROJECT)
    .replace(
        'run.data("points:all", batch_size=24, epochs=config.epochs)',
        'run.data("points:all", batch_size=24, epochs=config.epochs, map=noisy, workers=WORKERS)',
    )
    .replace(
        "def fit(",
        "WORKERS = int(__import__('os').environ['DATA_WORKERS'])\n\n"
        "def noisy(sample, rng):\n"
        "    noise = rng.normal(size=6).astype('float32') / 10\n"
        "    return {**sample, 'point': sample['point'] + noise}\n\n"
        "def fit(",
    )
)


@pytest.fixture
def noisy(made):
    """`noisy(workers)`: a project whose ranks have so many data workers each."""

    def make(workers):
        project = made()
        (project.folder / "train.py").write_text(NOISY)
        project.environment["DATA_WORKERS"] = str(workers)
        return project

    return make


@pytest.mark.long
def test_weights_do_not_depend_on_data_workers_nor_on_who_is_killed(noisy, dice):
    alone = noisy(0)
    alone.run("run", "2")
    wanted = alone.newest("run")
    assert (wanted.state, wanted.step) == ("finished", STEPS)

    project = noisy(2)
    script = project.start("run", "2")
    project.until("the data workers", lambda: len(project.pids("run", "data")) == 4)
    project.until("a step", lambda: project.committed("run") >= 10)
    victim = dice.choice(project.pids("run", "data"))
    project.signal(victim, signal.SIGKILL)
    project.until("another", lambda: victim not in (now := project.pids("run", "data")) and now)
    project.until("a step", lambda: project.committed("run") >= 30)
    rank, workers = project.pids("run", "rank")[0], project.pids("run", "data")
    project.signal(rank, signal.SIGKILL)
    project.until("their end", lambda: not set(workers) & set(project.pids("run", "data")))
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    assert project.newest("run").result["weights"] == wanted.result["weights"]
    assert [body["signal"] for body in project.events("run", "rank.died")] == ["SIGKILL"]
    opened = project.events("run", "data.opened")[0]
    assert (opened["reference"], opened["batch"], opened["block"]) == ("points:all", 24, 0)


@pytest.mark.long
def test_data_workers_serve_a_run_in_the_scripts_own_process(noisy):
    alone, project = noisy(0), noisy(1)
    alone.run("run", "0")
    project.run("run", "0")
    assert project.newest("run").result["weights"] == alone.newest("run").result["weights"]


def test_no_data_worker_outlives_a_killed_agent(noisy, dice):
    project = noisy(2)
    script = project.start("run", "1")
    workers = project.until("the data workers", lambda: project.pids("run", "data"))
    project.until("a step", lambda: project.committed("run") >= 10)
    project.kill("run", "agent")
    project.until("their end", lambda: not set(workers) & set(project.pids("run", "data")))
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    assert project.newest("run").state == "finished"
