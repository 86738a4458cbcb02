"""Anything may die at any moment: the weights are those of a run that nobody touched."""

import signal
import textwrap
import time

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(180)]

FINISHED = ("finished", 80)


def at_some_step(project, dice, name="run", low=1, high=55):
    """Wait until the run has saved a random step."""
    step = dice.randrange(low, high) // 10 * 10
    project.until(f"step {step}", lambda: project.committed(name) >= step)


def outcome(project, name="run"):
    run = project.newest(name)
    return run.state, run.step


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_killed_rank_changes_no_bit_of_the_weights(project, dice, undisturbed, workers):
    script = project.start("run", str(workers))
    at_some_step(project, dice)
    victim = dice.choice(project.until("the ranks", lambda: project.pids("run", "rank")))
    project.signal(victim, signal.SIGKILL)
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    assert outcome(project) == FINISHED
    assert project.newest("run").result["weights"] == undisturbed(workers)
    assert [body["signal"] for body in project.events("run", "rank.died")] == ["SIGKILL"]


@pytest.mark.parametrize("role", ["rank", "agent", "image", "sidecar", "controller"])
def test_all_of_a_kind_are_killed_and_the_script_notices_nothing(project, dice, undisturbed, role):
    script = project.start("run", "2")
    at_some_step(project, dice, low=10)
    project.kill("run", role)
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    assert outcome(project) == FINISHED
    assert project.newest("run").result["weights"] == undisturbed(2)


def test_everything_but_the_script_is_killed_and_the_script_run_again_goes_on(
    project, dice, undisturbed
):
    script = project.start("run", "2")
    at_some_step(project, dice, low=10)
    project.kill("run", "controller", "agent", "image", "rank", "sidecar")
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 9, out
    assert "was interrupted" in out
    assert "it is unfinished" in project.run("run", "2")
    assert outcome(project) == FINISHED
    assert project.newest("run").result["weights"] == undisturbed(2)
    attempts = project.events("run", "attempt.started")
    assert len(attempts) == 2 and attempts[1]["from_step"] >= 10


def test_a_killed_script_stops_its_run_cleanly_and_run_again_goes_on(project, dice, undisturbed):
    path = project.folder / "train.py"
    path.write_text(path.read_text().replace("pause: float = 0.01", "pause: float = 0.05"))
    script = project.start("run", "2")
    at_some_step(project, dice, low=10, high=15)
    script.kill()
    script.communicate()
    project.until("the end", lambda: project.newest("run").state == "stopped")
    project.nothing_left()
    assert project.committed("run") == project.newest("run").step  # saved where it stopped
    project.run("run", "2")
    assert project.newest("run").result["weights"] == undisturbed(2)


def test_a_detached_run_goes_on_without_its_script(project, undisturbed):
    project.run("run", "2", "detach")
    project.until("the end", lambda: project.newest("run").state == "finished")
    assert project.newest("run").result["weights"] == undisturbed(2)


def test_a_detached_run_whose_owners_died_is_adopted(project, dice, undisturbed):
    from penstock.jobs import control

    project.run("run", "2", "detach")
    at_some_step(project, dice)
    project.kill("run", "controller", "agent")
    project.until("their end", lambda: not project.pids("run", "controller", "agent"))
    with project.stores() as stores:
        adopted = project.until("the adoption", lambda: control.adopt(stores))
    assert adopted == [project.newest("run").id]
    project.until("the end", lambda: project.newest("run").state == "finished")
    assert project.newest("run").result["weights"] == undisturbed(2)


def test_a_detached_run_whose_script_died_before_it_had_a_controller_is_adopted(
    project, undisturbed
):
    from penstock.jobs import control

    path = project.folder / "train.py"
    path.write_text(
        textwrap.dedent(
            """
            import os
            from penstock.jobs import control

            if os.environ.get("DIE"):
                control.start_controller = lambda *_: os.kill(os.getpid(), 9)
            """
        )
        + path.read_text()
    )
    project.environment["DIE"] = "yes"
    project.run("run", "2", "detach", code=-signal.SIGKILL)
    assert project.newest("run").state == "pending"
    with project.stores() as stores:
        assert control.adopt(stores) == [project.newest("run").id]
    project.until("the end", lambda: project.newest("run").state == "finished")
    assert project.newest("run").result["weights"] == undisturbed(2)


def test_owners_killed_while_they_start_are_followed_by_others(project, dice, undisturbed):
    """At a random moment between the first controller and the first step: either of them may
    just have started the other, which then comes up beside the next one."""
    from penstock.jobs import control

    script = project.start("run", "2", "detach")
    project.until("a controller", lambda: project.pids("run", "controller"))
    moment = time.monotonic() + dice.uniform(0, 1.5)
    project.until("the moment", lambda: time.monotonic() > moment)
    project.kill("run", "controller", "agent")
    script.communicate(timeout=60)
    with project.stores() as stores:
        project.until(
            "the end",
            lambda: control.adopt(stores) or project.newest("run").state == "finished",
        )
    project.until("the end", lambda: project.newest("run").state == "finished")
    assert project.newest("run").result["weights"] == undisturbed(2)


def test_a_controller_killed_right_after_it_started_an_agent_is_followed(project, undisturbed):
    """The agent comes up beside the one of the next controller; the newest serves."""
    from penstock.jobs import control

    (project.folder / "sitecustomize.py").write_text(
        textwrap.dedent(
            """
            import os, pathlib, subprocess

            start, done = subprocess.Popen.__init__, pathlib.Path("died")

            def starting(self, command, *rest, **options):
                start(self, command, *rest, **options)
                if "penstock.jobs.agent" in command and not done.exists():
                    done.touch()
                    os.kill(os.getpid(), 9)

            subprocess.Popen.__init__ = starting
            """
        )
    )
    project.environment["PYTHONPATH"] = str(project.folder)
    project.run("run", "2", "detach")
    project.until("the controller's death", (project.folder / "died").exists)
    with project.stores() as stores:
        project.until(
            "an end",
            lambda: control.adopt(stores) or project.newest("run").state == "finished",
        )
    project.until("the end", lambda: project.newest("run").state == "finished")
    assert project.newest("run").result["weights"] == undisturbed(2)
