"""Every step once in MLflow, whatever dies in between; read back by MLflow itself."""

from __future__ import annotations

import math
import random
import subprocess
import sys
import time

import pytest

from penstock.base.errors import Unavailable
from penstock.signals import read_scalars, reduce_scalars
from penstock.signals.mlflow import Forwarder, shown

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]
pytest.importorskip("mlflow")


def there(target, run_id="run-1"):
    """What MLflow has: (name, step) -> value, each once or the test fails; and its status."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{target}/mlflow.db")
    experiment = client.get_experiment_by_name("penstock")
    [run] = client.search_runs([experiment.experiment_id], f"tags.`penstock.run` = '{run_id}'")
    found = {}
    for name in run.data.metrics:
        for each in client.get_metric_history(run.info.run_id, name):
            assert (name, each.step) not in found
            found[name, each.step] = each.value
    return found, run.info.status


def reduced(folder):
    rows = reduce_scalars(read_scalars(folder)).to_pylist()
    return {(shown(row["name"]), row["step"]): row["value"] for row in rows}


def test_what_settles_is_written_once_and_the_next_forwarder_goes_on(folder, emitter, tmp_path):
    target = str(tmp_path / "mlflow")
    ranks = [emitter(rank=rank) for rank in range(2)]
    for step in range(5):
        for rank, each in enumerate(ranks):
            each.scalar(step, "train/loss[0]", 1.0 + 2 * rank)
    with Forwarder(folder, target, "run-1", "base") as forwarder:
        assert forwarder.poll() == 4
        assert forwarder.poll() == 0
    found, status = there(target)
    assert found == {("train/loss_0_", step): 2.0 for step in range(4)}
    assert status == "RUNNING"
    ranks[0].scalar(5, "odd", math.nan)
    with Forwarder(folder, target, "run-1", "base") as forwarder:
        assert forwarder.poll(final=True) == 2
        forwarder.end(finished=True)
    found, status = there(target)
    assert math.isnan(found.pop(("odd", 5)))
    assert found == {("train/loss_0_", step): 2.0 for step in range(5)}
    assert status == "FINISHED"


def test_killed_anywhere_nothing_is_twice_and_nothing_is_lost(folder, emitter, tmp_path):
    target = str(tmp_path / "mlflow")
    told = emitter(rank=0)
    for step in range(3000):
        told.scalar(step, "a", float(step))
        told.scalar(step, "b", -float(step))
    code = (
        "import sys; from pathlib import Path; from penstock.signals.mlflow import Forwarder\n"
        "f = Forwarder(Path(sys.argv[1]), sys.argv[2], 'run-1', 'base'); print('up', flush=True)\n"
        "f.poll(final=True)"
    )
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(folder), target], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(random.uniform(0, 0.6))
        child.kill()
        child.communicate()
    with Forwarder(folder, target, "run-1", "base") as forwarder:
        forwarder.poll(final=True)
    assert there(target)[0] == reduced(folder)


def test_a_place_that_cannot_be_written_is_one_clear_error(folder, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(Unavailable, match="did not take scalars"):
        Forwarder(folder, str(tmp_path / "file" / "mlflow"), "run-1", "base")
