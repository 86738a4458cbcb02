"""The death of ranks costs at most the steps since the last state in memory."""

import time
from pathlib import Path

import pytest
from tests.training.conftest import STEPS

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(240)]

EVERY = 4
RARELY = ("checkpoint_every=10", "checkpoint_every=50")
# Ranks wait before the step of each of these numbers, until there is a file named after it.
WAITS = ("        loss =", "        held(run.global_step)\n        loss =")
HELD = """
def held(step):
    import pathlib
    while step in (20, 30, 40, 62) and not pathlib.Path(f"past-{step}").exists():
        time.sleep(0.01)

def fit(run"""


def waiting(project):
    """A run that saves to the disk at steps 50 and 80 only, and stops at steps 20, 30, 40, 62."""
    project.edit(RARELY, WAITS, ("\ndef fit(run", HELD))
    return project.start("run", "2")


def at(project, step):
    """All ranks wait before the step after this one, and the state of the last multiple of EVERY
    is in memory: it is judged within a second or two though the step does not go on."""
    reached = lambda: project.newest("run").step >= step  # noqa: E731
    project.until(f"step {step}", lambda: project.newest("run") is not None and reached())
    time.sleep(2.5)


def past(project, step):
    (project.folder / f"past-{step}").touch()


def resumed(project):
    return [(body["from"], body["step"]) for body in project.events("run", "attempt.resumed")]


def test_ranks_that_die_cost_the_steps_since_the_state_in_memory(made, undisturbed):
    project = made(checkpoint_memory_every=EVERY)
    script = waiting(project)
    at(project, 20)
    project.kill("run", "rank")
    project.until("the next attempt", lambda: resumed(project) == [("memory", 20)])
    past(project, 20)
    at(project, 30)
    project.kill("run", "image")  # of the memory it owns nothing
    project.until("the next attempt", lambda: len(resumed(project)) == 2)
    past(project, 30)
    at(project, 40)
    project.kill("run", "controller")
    project.until("the next controller", lambda: project.events("run", "controller.adopted"))
    project.kill("run", "rank", only=project.pids("run", "rank")[1])
    project.until("the next attempt", lambda: len(resumed(project)) == 3)
    past(project, 40)
    at(project, 62)
    project.kill("run", "agent")  # and with it the memory
    project.until("the next attempt", lambda: len(resumed(project)) == 4)
    past(project, 62)
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    assert resumed(project) == [("memory", 20), ("memory", 28), ("memory", 40), ("disk", 50)]
    assert project.committed("run") == STEPS
    assert project.newest("run").result["weights"] == undisturbed(2)


@pytest.mark.long
def test_a_state_that_changed_in_memory_is_named_and_the_checkpoint_used(made, undisturbed):
    project = made(checkpoint_memory_every=EVERY)
    script = waiting(project)
    for step in (20, 30, 40):
        past(project, step)
    at(project, 62)
    (agent,) = project.pids("run", "agent")
    for entry in Path(f"/proc/{agent}/fd").iterdir():
        if str(entry.readlink()).startswith("/memfd:1-"):  # a slot of the first gang
            with entry.open("r+b") as slot:
                slot.write(b"\xff" * 8)
    project.kill("run", "rank")
    project.until("the next attempt", lambda: resumed(project) == [("disk", 50)])
    past(project, 62)
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    assert project.events("run", "checkpoint.damaged")[0]["damage"]["step"] == 60
    assert project.newest("run").result["weights"] == undisturbed(2)


@pytest.mark.long
def test_without_the_memory_tier_a_death_costs_the_steps_since_the_last_checkpoint(
    made, undisturbed
):
    project = made(checkpoint_memory_every="off")
    script = waiting(project)
    for step in (20, 30, 40):
        past(project, step)
    at(project, 62)
    project.kill("run", "rank")
    past(project, 62)
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    assert resumed(project) == [("disk", 50)]
    assert project.newest("run").result["weights"] == undisturbed(2)
