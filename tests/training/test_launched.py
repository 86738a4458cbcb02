"""Ranks that torchrun or SLURM started: the same script, the same weights."""

from __future__ import annotations

import os
import signal
import stat
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.training.conftest import STEPS, Project, until

from penstock.base.errors import NotFound
from penstock.home import runs
from penstock.jobs import control

pytestmark = [pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(240)]

TORCHRUN = (
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
    "--max-restarts", "3", "--no-python",
)  # fmt: skip


def attempts(project: Project, name: str) -> list[tuple[int, str | None]]:
    """(generation, what ended it) of each attempt of the newest run."""
    run = project.newest(name)
    with project.stores() as stores, stores.meta.read() as db:
        return [(each.generation, each.cause) for each in db.attempts(run.id)]


def ranks(project: Project, name: str) -> dict[str, int]:
    started = project.events(name, "gang.started") if project.newest(name) else []
    return started[-1]["pids"] if started else {}


def test_a_script_under_torchrun_is_a_rank_of_its_run(
    project: Project, undisturbed: Callable[[int], str]
) -> None:
    out = project.run("base", "2", under=TORCHRUN)
    run = project.newest("base")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2)
    assert out.count(run.id) == 2  # every rank has the same answer
    with project.stores() as stores:
        with pytest.raises(NotFound, match="torchrun started its ranks"):
            list(runs.logs(stores, run.id, None, False, False))
        assert runs.one(stores, "base").workers == 2 and run.spec["launcher"] == "torchrun"


@pytest.mark.long
def test_a_rank_killed_under_torchrun_costs_no_bit(
    project: Project, undisturbed: Callable[[int], str]
) -> None:
    script = project.start("base", "2", under=TORCHRUN)
    until("a checkpoint", lambda: project.committed("base") >= 20)
    project.signal(ranks(project, "base")["1"], signal.SIGKILL)
    out, _ = script.communicate(timeout=100)
    assert script.returncode == 0, out
    run = project.newest("base")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2)
    (first, died), (second, finished) = attempts(project, "base")
    assert first < second and (died, finished) == ("rank 1 died", "finished")
    assert project.events("base", "attempt.resumed")[0]["step"] >= 20
    assert out.count(run.id) == 2  # every rank has the same answer


@pytest.mark.long
def test_rank_0_killed_under_torchrun_leaves_its_lease_at_once(
    project: Project, undisturbed: Callable[[int], str]
) -> None:
    """Rank 0 owned the run; then the finished run is reused on all ranks, and goes on nowhere."""
    script = project.start("base", "2", under=TORCHRUN)
    until("a checkpoint", lambda: project.committed("base") >= 20)
    project.signal(ranks(project, "base")["0"], signal.SIGKILL)
    out, _ = script.communicate(timeout=100)
    assert script.returncode == 0, out
    run = project.newest("base")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2)
    (first, killed), (second, finished) = attempts(project, "base")
    assert first < second and (killed, finished) == ("interrupted", "finished")
    out = project.run("base", "2", under=TORCHRUN)
    assert out.count("reused run base") == 1 and out.count(run.id) == 2


@pytest.mark.long
def test_an_error_of_the_function_is_raised_on_all_ranks(project: Project) -> None:
    project.edit(("time.sleep(config.pause)", "assert run.rank == 0 or run.global_step < 15, 'no'"))
    once = [each for each in TORCHRUN if each not in ("--max-restarts", "3")]
    out = project.run("base", "2", under=tuple(once), code=1)
    run = project.newest("base")
    assert run.state == "failed" and run.error["code"] == "user-code"
    assert out.count("AssertionError: no (rank 1, step 15)") >= 2


@pytest.mark.long
def test_a_stop_ends_all_ranks_after_the_same_step(
    project: Project, undisturbed: Callable[[int], str]
) -> None:
    script = project.start("base", "2", under=TORCHRUN)
    until("a checkpoint", lambda: project.committed("base") >= 20)
    with project.stores() as stores:
        control.stop(stores, project.newest("base").id)
    out, _ = script.communicate(timeout=100)
    assert script.returncode == 0, out  # so that torchrun does not start them again
    run = project.newest("base")
    assert run.state == "stopped" and run.step == project.committed("base") < STEPS
    project.run("base", "2", under=TORCHRUN)  # another launcher, or none, goes on with it
    assert project.newest("base").result["weights"] == undisturbed(2)


SRUN = """
    import os, pathlib, signal, subprocess, sys, time

    here = pathlib.Path(__file__).parent
    children = []

    def forward(number, frame):
        for child in children:
            child.send_signal(number)

    signal.signal(signal.SIGUSR1, forward)
    signal.signal(signal.SIGTERM, forward)
    while True:
        asked = here / "requeued"
        asked.unlink(missing_ok=True)
        for rank in range(2):
            told = {"PROCID": rank, "NTASKS": 2, "LOCALID": rank, "JOB_ID": os.getpid(),
                    "STEP_ID": 0, "NNODES": 1, "JOB_NODELIST": "localhost"}
            told = {"SLURM_" + key: str(value) for key, value in told.items()}
            children.append(subprocess.Popen(sys.argv[1:], env=os.environ | told))
        codes = [child.wait() for child in children]
        children.clear()
        if any(codes) or not asked.exists():
            sys.exit(max(codes))
    """
SCONTROL = """#!/bin/sh
    echo "$@" >> "$(dirname "$0")/scontrol.log"
    touch "$(dirname "$0")/requeued"
    """


@pytest.fixture
def slurm(project: Project, tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    """Stand-ins: a folder on the path with `scontrol`, and the command that `srun` would be."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    (folder / "srun.py").write_text(textwrap.dedent(SRUN))
    command = folder / "scontrol"
    command.write_text(SCONTROL.replace("    ", ""))
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    project.environment["PATH"] = f"{folder}:{os.environ['PATH']}"
    return folder, (sys.executable, str(folder / "srun.py"))


@pytest.mark.long
def test_a_preempted_job_of_slurm_is_requeued_and_goes_on(
    project: Project,
    undisturbed: Callable[[int], str],
    slurm: tuple[Path, tuple[str, ...]],
) -> None:
    folder, srun = slurm
    script = project.start("base", "2", under=srun)
    until("a checkpoint", lambda: project.committed("base") >= 20)
    project.signal(ranks(project, "base")["1"], signal.SIGUSR1)  # on any rank
    until("the request", (folder / "scontrol.log").exists)
    out, _ = script.communicate(timeout=100)
    assert script.returncode == 0, out
    assert (folder / "scontrol.log").read_text() == f"requeue {script.pid}\n"
    run = project.newest("base")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2)
    (_, preempted), (_, finished) = attempts(project, "base")
    assert (preempted, finished) == ("preempted", "finished")
    with project.stores() as stores, stores.meta.read() as db:
        first, _ = db.attempts(run.id)
    assert project.events("base", "attempt.resumed")[0]["step"] == first.to_step  # nothing was lost


@pytest.mark.long
def test_slurm_is_not_asked_where_the_setting_says_so(
    project: Project, slurm: tuple[Path, tuple[str, ...]]
) -> None:
    folder, srun = slurm
    project.environment["PENSTOCK_SLURM_REQUEUE"] = "false"
    script = project.start("base", "2", under=srun)
    until("a checkpoint", lambda: project.committed("base") >= 20)
    script.send_signal(signal.SIGTERM)  # to all ranks
    out, _ = script.communicate(timeout=100)
    assert script.returncode == 0 and "slurm_requeue is off" in out
    assert not (folder / "scontrol.log").exists()
    assert [cause for _, cause in attempts(project, "base")] == ["preempted"]
