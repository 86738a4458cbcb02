"""A run's scalars and config in W&B's files, by its own process, whatever is killed on the way."""

import os
import signal
from pathlib import Path

import pytest

from penstock.signals import wandb_files

pytestmark = [pytest.mark.torch, pytest.mark.interop, pytest.mark.timeout(300)]
pytest.importorskip("wandb")


@pytest.fixture
def project(made, tmp_path):
    found = made(wandb="trials")
    found.environment["WANDB_MODE"] = "offline"
    for name in ("CACHE", "CONFIG", "DATA"):
        found.environment[f"WANDB_{name}_DIR"] = str(tmp_path / name.lower())
    return found


def of(project, word):
    """Pids of processes of this project with this word in their command lines."""
    return [int(line.split()[0]) for line in project.leftovers() if word in line]


def rows(project, place=None):
    run = project.newest("run")
    folder = place or project.home / "runs" / run.id
    return [row for path in wandb_files.files(folder, run.id) for row in wandb_files.rows(path)]


def test_every_step_is_in_the_files_once_whatever_was_killed(project):
    project.edit(("pause: float = 0.01", "pause: float = 0.2"))
    script = project.start("run", "1")
    project.until("step 20", lambda: project.committed("run") >= 20)
    project.until("a forwarder", lambda: of(project, "training.forwarder"))
    [first] = of(project, "training.forwarder")
    project.until("its service", lambda: of(project, "wandb-core"))
    [service] = of(project, "wandb-core")
    project.kill("run", "controller")
    for pid in (first, service):
        project.until("its end", lambda pid=pid: not Path(f"/proc/{pid}/exe").exists())
    project.until("step 50", lambda: project.committed("run") >= 50)
    os.kill(project.pids("run", "rank")[0], signal.SIGKILL)
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    losses = [row["_step"] for row in rows(project) if "train/loss" in row]
    assert losses == list(range(1, project.newest("run").step + 1))
    assert len({row["_timestamp"] for row in rows(project)}) > 40, "when it was told, not when sent"
    project.nothing_left()


def test_a_run_goes_on_though_wandb_takes_nothing_and_wandb_dir_says_where_the_files_are(
    project, tmp_path
):
    (tmp_path / "file").write_text("no folder")
    project.environment["WANDB_DIR"] = str(tmp_path / "file" / "wandb")
    project.run("run", "1")
    assert project.newest("run").state == "finished"
    assert project.log("run", "controller").count("nothing to W&B") == 1
    project.environment["WANDB_DIR"] = str(tmp_path / "boards")
    project.edit(("pause: float = 0.01", "pause: float = 0.0"))
    project.run("run", "1")
    assert len(rows(project, tmp_path / "boards")) >= 80
    assert not rows(project)
