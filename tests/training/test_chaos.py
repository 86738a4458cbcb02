"""Long: every kind of process is killed again and again at random moments of one training.

`make chaos` runs it; PENSTOCK_CHAOS_SEED=N repeats one. The short version is test_kills.py.
"""

import signal

import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]

ROLES = ["rank", "rank", "rank", "agent", "image", "sidecar", "controller", "all ranks", "script"]
FAULTS = 12


def strike(project, dice, script):
    """One fault at a random moment. Returns the script that goes on, or a new one."""
    role = dice.choice(ROLES)
    before = project.committed("run")
    project.until("progress", lambda: is_over(project) or project.committed("run") > before, 90)
    if is_over(project):
        return script
    if role == "script":
        script.kill()
        script.communicate()
        project.until("its end", lambda: project.newest("run").state in ("stopped", "finished"))
        return project.start("run", str(project.newest("run").spec["workers"]))
    victims = project.pids("run", "rank" if role == "all ranks" else role)
    for pid in victims if role == "all ranks" else dice.sample(victims, min(1, len(victims))):
        project.signal(pid, signal.SIGKILL)
    return script


def is_over(project):
    return project.newest("run").state == "finished"


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_storm_of_kills_changes_a_bit_of_the_weights(project, dice, workers):
    path = project.folder / "train.py"
    path.write_text(path.read_text().replace("epochs: int = 10", "epochs: int = 60"))
    project.run("twin", str(workers))
    script = project.start("run", str(workers))
    project.until("a run", lambda: project.newest("run"))
    for _ in range(FAULTS):
        script = strike(project, dice, script)
    out, _ = script.communicate(timeout=300)
    assert script.returncode == 0, out
    run = project.newest("run")
    assert (run.state, run.step) == ("finished", 480)
    assert run.result["weights"] == project.newest("twin").result["weights"]
