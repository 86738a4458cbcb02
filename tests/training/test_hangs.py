"""A rank that hangs is found, named with its line, and replaced; what is only slow is let be."""

import signal
import subprocess
import sys

import pytest
from tests.training.conftest import STEPS

from penstock.monitoring import Accountant

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(120)]

HANGS = """
        if run.rank == 1 and run.global_step == 25 and not pathlib.Path("{flag}").exists():
            pathlib.Path("hung").touch()
            {hangs}
"""
LOOP = "while True: time.sleep(60)"
LOCK = "lock = threading.Lock(); lock.acquire(); lock.acquire()"


def hanging(project, hangs, once=True):
    """Rank 1 hangs at step 25. Returns the number of the line in which it does."""
    lines = HANGS.format(hangs=hangs, flag="hung" if once else "never").lstrip("\n")
    path = project.folder / "train.py"
    text = path.read_text().replace("import sys\n", "import pathlib, sys, threading\n", 1)
    loop = "        loss ="
    path.write_text(text.replace(loop, lines + loop, 1))
    return path.read_text()[: path.read_text().index(hangs)].count("\n") + 1


def penstock(project, *words):
    command = [sys.executable, "-m", "penstock.cli.main", *words]
    return subprocess.run(
        command, cwd=project.folder, env=project.environment, capture_output=True, text=True
    ).stdout


def ended_well(project, undisturbed):
    run = project.newest("run")
    assert (run.state, run.step) == ("finished", STEPS)
    assert run.result["weights"] == undisturbed(2)


@pytest.mark.parametrize(
    "hangs", [LOOP, pytest.param(LOCK, marks=pytest.mark.long)], ids=["a loop", "a lock"]
)
def test_a_rank_that_hangs_is_named_with_its_line_and_replaced(made, undisturbed, hangs):
    project = made(hang_seconds=2)
    line = hanging(project, hangs)
    out = project.run("run", "2")
    (told,) = project.events("run", "rank.hung")
    assert (told["rank"], told["step"], told["attempt"]) == (1, 25, 1)
    assert told["where"] == f"train.py:{line} in fit"
    assert told["waiting"] == [0] and not told["waits"]
    assert told["seconds"] >= 2
    other = next(each for each in told["ranks"] if each["rank"] == 0)
    assert other["waits"] and other["where"].startswith("train.py:") and other["inside"]
    assert f"rank 1 hangs at step 25 (train.py:{line} in fit)" in out
    assert "it keeps waiting: rank 0" in out
    (ended, *_) = project.events("run", "attempt.ended")
    assert ended["cause"] == f"rank 1 hung at step 25 (train.py:{line} in fit)"
    with project.stores() as stores, stores.meta.read() as db:
        first, second = db.attempts(project.newest("run").id)
    assert first.detail["ranks"] == told["ranks"]
    assert 20 <= second.from_step <= 25  # the checkpoint, or a newer state in memory
    logs = project.home / "runs" / project.newest("run").id / "logs"
    assert f"line {line} in fit" in (logs / "rank-1.stacks").read_text()
    assert "in fit" in (logs / "rank-0.stacks").read_text()
    shown = penstock(project, "runs", "show", "run")
    assert f"rank 1 hung at step 25 (train.py:{line} in fit)" in " ".join(shown.split())
    ended_well(project, undisturbed)


@pytest.mark.long
def test_a_step_that_is_only_slow_gets_through_with_more_patience(made, undisturbed):
    """Longer than may be in every attempt, not only once."""
    project = made(hang_seconds=2)
    hanging(project, "time.sleep(3.5)", once=False)
    project.run("run", "2")
    told = project.events("run", "rank.hung")
    assert 1 <= len(told) <= 2
    ended_well(project, undisturbed)


@pytest.mark.long
def test_a_rank_that_always_hangs_ends_the_run_with_what_to_do(made):
    project = made(hang_seconds=1)
    line = hanging(project, LOOP, once=False)
    out = project.run("run", "2", code=9)
    assert f"rank 1 hung at step 25 (train.py:{line} in fit); 3 hangs in a row" in out
    assert "rank-N.stacks" in out
    assert [told["attempt"] for told in project.events("run", "rank.hung")] == [1, 2, 3]
    run = project.newest("run")
    assert run.state == "failed" and run.error["facts"]["waiting"] == [0]
    project.nothing_left()


@pytest.mark.parametrize("dies", [None, pytest.param("controller", marks=pytest.mark.long)])
def test_a_rank_that_was_stopped_is_named_though_it_has_no_stack(made, undisturbed, dies):
    project = made(hang_seconds=2)
    script = project.start("run", "2")
    project.until("step 20", lambda: project.committed("run") >= 20)
    stopped = project.events("run", "gang.started")[0]["pids"]["1"]
    project.signal(stopped, signal.SIGSTOP)
    if dies:  # the next one hears of the hang
        project.kill("run", dies)
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 0, out
    (told,) = project.events("run", "rank.hung")
    assert (told["rank"], told["state"], told["where"]) == (1, "stopped by SIGSTOP", None)
    assert told["waiting"] == [0]
    (ended, *_) = project.events("run", "attempt.ended")
    assert ended["cause"] == f"rank 1 hung at step {told['step']} (stopped by SIGSTOP)"
    assert stopped not in project.pids("run", "rank")
    with project.stores() as stores:
        ledger = Accountant(stores, "run").look().ledger
    assert all(rank.seconds["hang"] >= 2 for rank in ledger.ranks)  # what nobody could see sooner
    assert all(abs(sum(r.seconds.values()) - r.wall) < 1e-6 for r in ledger.ranks)
    ended_well(project, undisturbed)
