"""A lost machine costs the steps since the last state in memory: each agent has its neighbour's
copy. Machines are agents with folders of their own, reached over the network."""

import signal
import time
from pathlib import Path

import pytest
from tests.training.conftest import STEPS
from tests.training.engines import on_hosts, processes
from tests.training.test_tiers import HELD, RARELY, WAITS, past, resumed

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(240)]

EVERY = 4


@pytest.fixture
def kept(made):
    """A run that saves to the disk at steps 50 and 80 only, and stops at steps 20, 30, 40, 62."""

    def run(hosts, ranks, **settings):
        project = on_hosts(made, f"hosts:{hosts}", checkpoint_memory_every=EVERY, **settings)
        held = HELD.replace('Path(f"', f'Path(f"{project.folder}/')
        project.edit(RARELY, WAITS, ("\ndef fit(run", held))
        project.script = project.start("run", str(ranks))
        return project

    return run


def at(project, step):
    """All ranks wait before the step after this one, and what they kept is copied."""
    reached = lambda: (run := project.newest("run")) is not None and run.step >= step  # noqa: E731
    project.until(f"step {step}", reached, 120)
    time.sleep(2.5)


def kill_agents(project, *ranks):
    """Those that have these ranks, at one moment."""
    doomed = {folder for folder, row in processes(project.nodes, "rank") if row["rank"] in ranks}
    found = [row["pid"] for folder, row in processes(project.nodes, "agent") if folder in doomed]
    assert len(found) == len(ranks)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in found:
            project.signal(pid, number)


def finished(project, undisturbed, ranks=2):
    out, _ = project.script.communicate(timeout=150)
    assert project.script.returncode == 0, out
    run = project.newest("run")
    assert run.state == "finished" and run.step == STEPS
    assert run.result["weights"] == undisturbed(ranks)
    project.nothing_left()


@pytest.mark.long
def test_a_lost_machine_costs_the_steps_since_the_state_in_memory(kept, undisturbed):
    project = kept(2, 2)
    at(project, 20)
    kill_agents(project, 0)  # the other one has its part, and gets its number
    project.until("the next attempt", lambda: resumed(project) == [("memory", 20)], 120)
    past(project, 20)
    at(project, 30)
    (_, rank), *_ = processes(project.nodes, "rank")
    project.signal(rank["pid"], signal.SIGKILL)  # all agents are there
    project.until("the next attempt", lambda: len(resumed(project)) == 2, 120)
    past(project, 30)
    at(project, 40)
    kill_agents(project, 1)
    project.until("the next attempt", lambda: len(resumed(project)) == 3, 120)
    for step in (40, 62):
        past(project, step)
    finished(project, undisturbed)
    assert resumed(project) == [("memory", 20), ("memory", 28), ("memory", 40)]
    assert len(project.events("run", "node.lost")) == 2


@pytest.mark.long
def test_when_both_who_have_a_part_are_lost_the_checkpoint_is_used(kept, undisturbed):
    project = kept(3, 3)
    for step in (20, 30, 40):
        past(project, step)
    at(project, 62)
    kill_agents(project, 0, 1)
    project.until("the next attempt", lambda: resumed(project) == [("disk", 50)], 120)
    past(project, 62)
    finished(project, undisturbed, 3)


@pytest.mark.long
def test_of_three_machines_one_is_lost_and_parts_come_from_both_others(kept, undisturbed):
    project = kept(3, 3)
    at(project, 20)
    kill_agents(project, 1)
    project.until("the next attempt", lambda: resumed(project) == [("memory", 20)], 120)
    for step in (20, 30, 40, 62):
        past(project, step)
    finished(project, undisturbed, 3)


@pytest.mark.long
def test_a_copy_that_changed_is_named_and_the_checkpoint_used(kept, undisturbed):
    project = kept(2, 2)
    for step in (20, 30, 40):
        past(project, step)
    at(project, 62)
    torn = 0
    for _, row in processes(project.nodes, "agent"):
        for entry in Path(f"/proc/{row['pid']}/fd").iterdir():
            if str(entry.readlink()).startswith("/memfd:copy-"):
                with entry.open("r+b") as copy:
                    copy.write(b"\xff" * 8)
                torn += 1
    assert torn >= 2
    kill_agents(project, 0)
    project.until("the next attempt", lambda: resumed(project) == [("disk", 50)], 120)
    past(project, 62)
    finished(project, undisturbed)
    assert project.events("run", "checkpoint.damaged")[0]["damage"]["step"] == 60


@pytest.mark.long
def test_without_room_for_copies_it_is_said_and_the_checkpoint_used(kept, undisturbed):
    """Room for three slots of 44 KiB, and not for a copy of some 30 KiB beside them."""
    project = kept(2, 2, memory_tier_bytes=140_000)
    for step in (20, 30, 40):
        past(project, step)
    at(project, 62)
    assert project.events("run", "checkpoint.uncopied")
    kill_agents(project, 0)
    project.until("the next attempt", lambda: resumed(project) == [("disk", 50)], 120)
    past(project, 62)
    finished(project, undisturbed)


@pytest.mark.long
def test_when_to_keep_a_state_is_agreed_among_machines(made, undisturbed):
    """Without a number of steps: about once a second, all ranks after the same step."""
    project = on_hosts(made, "hosts:2")
    project.edit(RARELY, ("pause: float = 0.01", "pause: float = 0.15"))
    project.script = project.start("run", "2")
    reached = lambda: (run := project.newest("run")) is not None and run.step >= 42  # noqa: E731
    project.until("step 42", reached, 120)
    kill_agents(project, 0)
    project.until("the next attempt", lambda: len(resumed(project)) == 1, 120)
    finished(project, undisturbed)
    ((tier, step),) = resumed(project)
    assert tier == "memory" and step > 0
