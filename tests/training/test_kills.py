"""Anything may die at any moment: the weights are those of a run that nobody touched."""

import signal
import textwrap
import time

import pytest
from tests.training.conftest import STEPS
from tests.training.storm import SLOW, UNNOTICED, Storm

from penstock.jobs import control

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(240)]

FINISHED = ("finished", STEPS)
HURT = ["rank", "all ranks", "agent", "image", "sidecar", "controller"]

DIES_BEFORE_A_CONTROLLER = """
    import os
    from penstock.jobs import control

    control.start_controller = lambda *_: os.kill(os.getpid(), 9)
    """
DIES_AFTER_AN_AGENT = """
    import os, pathlib, subprocess

    start, done = subprocess.Popen.__init__, pathlib.Path("died")

    def starting(self, command, *rest, **options):
        start(self, command, *rest, **options)
        if "penstock.jobs.agent" in command and not done.exists():
            done.touch()
            os.kill(os.getpid(), 9)

    subprocess.Popen.__init__ = starting
    """


def outcome(project, name="run"):
    run = project.newest(name)
    return run.state, run.step


@pytest.mark.parametrize(
    "workers, also",
    [
        pytest.param(1, [], marks=pytest.mark.long),
        (2, ["everything"]),
        pytest.param(3, [], marks=pytest.mark.long),
        pytest.param(4, [], marks=pytest.mark.long),
    ],
)
def test_every_process_is_killed_in_one_run_and_no_bit_of_the_weights_changes(
    made, dice, undisturbed, workers, also
):
    """In shuffled order, at random moments of a step and of the end; see Storm for what each of
    them may cost. First with the script attached, then without it."""
    storm = Storm(project := made(source=SLOW), dice, workers)
    attached = dice.sample(HURT, len(HURT))
    detached = [attached.pop() for _ in range(dice.randrange(len(HURT)))] + ["script"] + also
    for who in [*attached, *also, "script", *dice.sample(detached, len(detached))]:
        storm.strike_in_a_step(who)
    (project.folder / "calm").touch()
    project.until("the last step", lambda: project.committed("run") == STEPS)
    storm.wait(1.0)
    storm.strike(dice.choice(HURT))
    (project.folder / "over").touch()
    project.until("the end", lambda: outcome(project) == FINISHED)
    assert project.newest("run").result["weights"] == undisturbed(workers)
    costly = [who for who in storm.struck if who not in UNNOTICED]
    assert storm.attempts() == len(costly)  # the first one, and one for each but a detached script
    deaths = [body["signal"] for body in project.events("run", "rank.died")]
    assert deaths.count("SIGKILL") >= storm.struck.count("rank") + storm.struck.count("all ranks")
    assert len(project.events("run", "agent.died")) == storm.struck.count("agent")
    assert len(project.events("run", "controller.adopted")) == storm.struck.count("controller")
    with project.stores() as stores, stores.meta.read() as db:
        assert [model.version for model in db.versions("model", "points")] == [1]


def test_owners_that_die_while_they_start_are_followed_by_others(project, dice, undisturbed):
    """One run, step by step: the script dies before it has a controller; the controller right
    after it started an agent, which comes up beside the one of the next controller; and both of
    them at a random moment, when either may just have started the other."""
    path = project.folder / "train.py"
    path.write_text(textwrap.dedent(DIES_BEFORE_A_CONTROLLER) + path.read_text())
    (project.folder / "sitecustomize.py").write_text(textwrap.dedent(DIES_AFTER_AN_AGENT))
    project.environment["PYTHONPATH"] = str(project.folder)
    project.run("run", "2", "detach", code=-signal.SIGKILL)
    assert project.newest("run").state == "pending"

    over = lambda: project.newest("run").state == "finished"  # noqa: E731
    with project.stores() as stores, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(project.folder))
        assert control.adopt(stores) == [project.newest("run").id]
        project.until("the controller's death", (project.folder / "died").exists)
        owner = lambda: control.adopt(stores) or project.pids("run", "controller")  # noqa: E731
        project.until("the next controller", owner)
        moment = time.monotonic() + dice.uniform(0, 1.5)
        project.until("the moment", lambda: time.monotonic() > moment)
        assert not over()
        project.kill("run", "controller", "agent")
        project.until("the end", lambda: control.adopt(stores) or over())
        project.until("the end", over)
    assert project.newest("run").result["weights"] == undisturbed(2)
