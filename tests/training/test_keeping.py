"""What a run writes stays: sources, checkpoints and signals are referred to, and forwarded."""

import signal
import subprocess
import sys
import time

import pytest

from penstock.home.gc import collect_garbage
from penstock.jobs.source import refs
from penstock.signals import read_scalars
from penstock.training import forwarding

pytestmark = [pytest.mark.torch, pytest.mark.timeout(120)]


def event_files(folder):
    """name -> {step: value} of a folder of TensorBoard files."""
    loaders = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    found = {}
    for path in sorted(folder.glob("events.*")):
        for event in loaders.LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                assert event.step not in found.setdefault(value.tag, {}), "written twice"
                found[value.tag][event.step] = value.simple_value
    return found


def test_every_scalar_is_in_the_tensorboard_files_once_whatever_was_killed(tmp_path, made):
    project = made(tensorboard=tmp_path / "boards")
    script = project.start("run", "2")
    project.until("step 20", lambda: project.committed("run") >= 20)
    project.kill("run", "controller")
    project.until("step 50", lambda: project.committed("run") >= 50)
    project.signal(project.pids("run", "rank")[0], signal.SIGKILL)
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 0, out
    run = project.newest("run")
    losses = event_files(tmp_path / "boards" / f"run-{run.id}")["train/loss"]
    assert sorted(losses) == list(range(1, run.step + 1))


@pytest.mark.long
def test_a_run_without_the_tensorboard_package_says_so_once_and_goes_on(tmp_path, made):
    project = made(tensorboard=tmp_path / "boards")
    broken = project.folder / "tensorboard"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('not here')")
    project.environment["PYTHONPATH"] = str(project.folder)
    project.run("run", "1")
    log = project.home / "runs" / project.newest("run").id / "logs" / "controller.log"
    assert log.read_text().count("needs the package tensorboard") == 1
    assert not (tmp_path / "boards").exists()


@pytest.mark.long
@pytest.mark.parametrize("missing", ["package", "place"])
def test_a_run_whose_mlflow_cannot_be_had_says_so_once_and_goes_on(tmp_path, made, missing):
    project = made(mlflow=str(tmp_path / "file" / "folder"))
    (tmp_path / "file").write_text("no folder")
    tracking = project.folder / "mlflow" / "tracking"
    tracking.mkdir(parents=True)
    (tracking.parent / "__init__.py").touch()
    broken = "raise ImportError('not here')"
    text = broken if missing == "package" else "class MlflowClient: pass"
    (tracking / "__init__.py").write_text(text)
    project.environment["PYTHONPATH"] = str(project.folder)
    project.run("run", "1")
    log = project.home / "runs" / project.newest("run").id / "logs" / "controller.log"
    says = "needs the package mlflow" if missing == "package" else "did not take scalars"
    assert log.read_text().count(says) == 1


@pytest.mark.parametrize("stopped", [True, False])
def test_a_tracker_that_does_not_end_is_ended(tmp_path, stopped):
    """Its process takes the last word and goes on, or cannot even hear it."""
    child = subprocess.Popen([sys.executable, "-c", "while True: input()"], stdin=subprocess.PIPE)
    if stopped:
        child.send_signal(signal.SIGSTOP)
    forwarding._tell(child, b"\n" * 100)
    forwarding._end(child, "W&B", time.monotonic() + (0.2 if stopped else 60))
    assert child.returncode == (-signal.SIGKILL if stopped else 1)


@pytest.mark.long
def test_a_run_without_the_wandb_package_says_so_once_and_goes_on(made):
    project = made(wandb="penstock")
    broken = project.folder / "wandb"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('not here')")
    project.environment["PYTHONPATH"] = str(project.folder)
    project.run("run", "1")
    assert project.log("run", "controller").count("needs the package wandb") == 1


@pytest.mark.parametrize("workers", [pytest.param("0", marks=pytest.mark.long), "1"])
def test_nothing_of_a_run_is_garbage_while_it_goes_on_and_afterwards(project, workers):
    script = project.start("run", workers)
    project.until("step 10", lambda: project.committed("run") >= 10)
    with project.stores() as stores:
        with stores.meta.read() as db:
            assert db.oldest_pin() is not None
        collect_garbage(stores, grace_seconds=0)
    out, _ = script.communicate(timeout=60)
    assert script.returncode == 0, out
    run = project.newest("run")
    [kept] = project.events("run", "signals.kept")
    with project.stores() as stores:
        collect_garbage(stores, grace_seconds=0)
        collect_garbage(stores, grace_seconds=0)
        assert read_scalars(kept["blobs"], stores.blobs).num_rows > run.step
        assert all(stores.blobs.exists(digest) for digest in refs(run.source, stores.blobs))
        with stores.meta.read() as db:
            assert all(stores.blobs.exists(row.digest) for row in db.checkpoints(run.id))
            assert db.oldest_pin() is None
