"""A run's scalars in MLflow, by its own process, whatever is killed on the way."""

import os
import signal
from pathlib import Path

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.interop, pytest.mark.timeout(300)]
pytest.importorskip("mlflow")


def forwarders(project):
    """Pids of the run's forwarders."""
    return [int(line.split()[0]) for line in project.leftovers() if "training.forwarder" in line]


def test_every_scalar_is_in_mlflow_once_whatever_was_killed(tmp_path, made):
    from mlflow.tracking import MlflowClient

    project = made(mlflow=str(tmp_path / "tracking"))
    project.edit(("pause: float = 0.01", "pause: float = 0.2"))
    script = project.start("run", "1")
    project.until("step 20", lambda: project.committed("run") >= 20)
    project.until("a forwarder", lambda: forwarders(project))
    [first] = forwarders(project)
    project.kill("run", "controller")
    project.until("its end", lambda: not Path(f"/proc/{first}").exists())
    project.until("step 50", lambda: project.committed("run") >= 50)
    os.kill(project.pids("run", "rank")[0], signal.SIGKILL)
    out, _ = script.communicate(timeout=120)
    assert script.returncode == 0, out
    run = project.newest("run")
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'tracking' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("penstock")
    [found] = client.search_runs([experiment.experiment_id])
    assert found.data.tags["penstock.run"] == run.id
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    losses = client.get_metric_history(found.info.run_id, "train/loss")
    assert sorted(each.step for each in losses) == list(range(1, run.step + 1))
