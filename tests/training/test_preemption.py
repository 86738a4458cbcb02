"""SIGTERM: what a scheduler sends before it takes the machine away."""

import os
import signal

import pytest

from penstock.jobs import control

pytestmark = [pytest.mark.torch, pytest.mark.faults]


def processes(project, name):
    """All of a run's, its script not among them."""
    run = project.newest(name)
    with project.stores() as stores:
        return [row["pid"] for row in control.pids(stores, run.id)]


@pytest.mark.parametrize("detached", [False, True])
def test_a_run_whose_processes_all_get_sigterm_saves_and_is_gone_on_with(
    project, undisturbed, detached
):
    """Script and all, as with SLURM, Kubernetes and systemd. Nothing of the step is lost."""
    script = project.start("base", "2", *(["detach"] if detached else []))
    project.until("a checkpoint", lambda: project.committed("base") >= 20)
    if detached:
        script.communicate(timeout=60)
    pids = processes(project, "base")
    project.until("other steps", lambda: project.newest("base").step % 10 not in (0, 9))
    for pid in [*pids, *([] if detached else [script.pid])]:
        project.signal(pid, signal.SIGTERM)
    if not detached:
        script.communicate(timeout=60)
    project.nothing_left()
    run = project.newest("base")
    assert run.state == "running" and run.ended_at is None  # nobody owns it: interrupted
    assert project.events("base", "run.preempted") and not project.events("base", "rank.died")
    saved = project.committed("base")
    assert saved == project.events("base", "attempt.ended")[-1]["to_step"] > 20
    if detached:
        with project.stores() as stores:
            assert control.adopt(stores) == [run.id]
        project.until("the end", lambda: project.newest("base").state == "finished")
    else:
        assert f"resumed at step {saved}" in project.run("base", "2")
    assert project.newest("base").result["weights"] == undisturbed(2)


def test_a_script_that_waits_says_that_its_run_was_preempted(project):
    """Only the agent was told: it passes it on."""
    script = project.start("base", "1")
    project.until("a checkpoint", lambda: project.committed("base") >= 10)
    for pid in project.pids("base", "agent"):
        os.kill(pid, signal.SIGTERM)
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 10 and "was preempted (SIGTERM) and saved at step" in out
    assert "preempted: saved, to be gone on with" in out


@pytest.mark.long
def test_what_stands_in_memory_is_saved_though_the_step_does_not_end_in_time(made):
    """The agent hands it over without the ranks."""
    project = made(grace_seconds=8, checkpoint_memory_every=1)
    project.edit(("time.sleep(config.pause)", "time.sleep(60 if run.global_step == 14 else 0.1)"))
    script = project.start("base", "2")
    project.until("the long step", lambda: (run := project.newest("base")) and run.step >= 14)
    assert project.committed("base") == 10

    def told_again():
        """The agent, once more: the copy of step 14 counts when the step has lasted for a while."""
        for pid in project.pids("base", "agent"):
            project.signal(pid, signal.SIGTERM)
        return project.committed("base") == 14

    project.until("step 14 on the disk", told_again, 8)
    script.communicate(timeout=30)
    project.nothing_left()
    assert project.committed("base") == 14
    project.edit(("60 if run.global_step == 14 else 0.1", "0"))
    assert "resumed at step 14" in project.run("base", "2")


@pytest.mark.long
def test_ranks_that_cannot_save_in_time_are_killed(made):
    """A step longer than the grace period: what was saved before it stays."""
    project = made(grace_seconds=0.5)
    project.edit(("time.sleep(config.pause)", "time.sleep(60 if run.global_step == 14 else 0)"))
    script = project.start("base", "1")
    project.until("a checkpoint", lambda: project.committed("base") >= 10)
    project.until("the long step", lambda: project.newest("base").step >= 14)
    for pid in project.pids("base", "controller"):
        os.kill(pid, signal.SIGTERM)
    script.communicate(timeout=30)
    project.nothing_left()
    assert project.newest("base").state == "running" and project.committed("base") == 10
