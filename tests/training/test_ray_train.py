"""A loop in a trainer of Ray Train, whose workers are on real nodes: the same weights, whatever
dies; what begins again is Ray's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from tests.ray_nodes import Cluster
from tests.training import conftest
from tests.training.conftest import Project
from tests.training.test_launched import attempts, ranks

from penstock.jobs import control

pytestmark = [
    pytest.mark.ray, pytest.mark.torch, pytest.mark.faults, pytest.mark.timeout(600),
]  # fmt: skip

TRAINER = """
    import os
    import sys

    import ray
    import ray.train
    from ray.train.torch import TorchTrainer, prepare_model
    import penstock as ps
    from train import Config, fit, make_points

    def loop(config: dict) -> tuple[bool, int]:
        ps.prepare("points", make_points, key="id", splits={"all": 1.0})
        every = config.pop("every")
        with ps.attach("base", Config(**config), checkpoint_every=every, seed=3) as run:
            fit(run, Config(**config))
        ray.train.report({"step": run.global_step}, checkpoint=kept(run))
        return run.finished, run.global_step

    def kept(run):
        with open("step", "w") as stream:
            stream.write(str(run.global_step))
        return ray.train.Checkpoint.from_directory(".") if run.rank == 0 else None

    def trainer(pause: str, every: str, failures: str, storage: str) -> TorchTrainer:
        return TorchTrainer(
            ps.in_ray_train(loop),
            train_loop_config={"pause": float(pause), "every": int(every)},
            scaling_config=ray.train.ScalingConfig(num_workers=2),
            run_config=ray.train.RunConfig(
                storage_path=storage,
                failure_config=ray.train.FailureConfig(max_failures=int(failures)),
            ),
        )

    if __name__ == "__main__":
        times, *options = sys.argv[1:]
        ray.init(address=os.environ["RAY_ADDRESS"], logging_level="warning")
        for _ in range(int(times)):
            result = trainer(*options, storage=os.path.abspath("storage")).fit()
            print("GAVE", result.return_value, result.metrics, flush=True)
    """


def until(what: str, holds: Callable[[], Any], seconds: float = 200.0) -> Any:
    """As elsewhere; Ray starts four processes before the loop, each of which imports torch."""
    return conftest.until(what, holds, seconds)


class Trainer:
    """A project whose script makes a TorchTrainer."""

    def __init__(self, project: Project, cluster: Cluster) -> None:
        self.project = project
        (project.folder / "trainer.py").write_text(textwrap.dedent(TRAINER))
        own = {key: value for key, value in project.environment.items() if "PENSTOCK" in key}
        project.environment |= cluster.environment | own
        project.environment |= {
            "RAY_ADDRESS": cluster.address,
            "RAY_DEDUP_LOGS": "0",
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        }
        self._out = project.folder / "out"

    def edit(self, *pairs: tuple[str, str]) -> None:
        path = self.project.folder / "trainer.py"
        text = path.read_text()
        for old, new in pairs:
            assert old in text, old
            text = text.replace(old, new)
        path.write_text(text)

    def start(
        self, pause: float = 0.01, every: int = 10, failures: int = 0, times: int = 1
    ) -> subprocess.Popen[str]:
        script = subprocess.Popen(
            [sys.executable, "trainer.py", *map(str, (times, pause, every, failures))],
            cwd=self.project.folder,
            env=self.project.environment,
            stdout=self._out.open("w"),
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.project._scripts.append(script)
        return script

    def end(self, script: subprocess.Popen[str], code: int = 0) -> str:
        script.wait(timeout=400)
        out = self._out.read_text()
        assert script.returncode == code, out
        return out

    def run(self, code: int = 0, **options: float) -> str:
        return self.end(self.start(**options), code)  # type: ignore[arg-type]


@pytest.fixture
def trainer(project: Project, cluster: Cluster) -> Trainer:
    return Trainer(project, cluster)


def gave(out: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in out.splitlines() if line.startswith("GAVE")]


@pytest.mark.cluster
def test_a_loop_in_ray_train_has_the_weights_of_a_run_of_our_own(
    trainer: Trainer, cluster: Cluster, undisturbed: Callable[[int], str]
) -> None:
    cluster.add()
    cluster.add()
    project = trainer.project
    out = trainer.run(times=2)  # finished, it gives no steps and the trainer returns
    assert gave(out) == ["(False, 80) {'step': 80}", "(True, 80) {'step': 80}"], out
    assert len({line for line in out.splitlines() if "reused run base" in line}) == 1  # rank 0
    run = project.newest("base")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2)
    assert attempts(project, "base") == [(1, "finished")] and project.committed("base") == 80
    assert run.source and run.spec["entry"] == "trainer:loop"
    assert {"trainer.loop", "trainer.kept", "train.fit"} <= run.spec["parts"].keys()
    command = [sys.executable, "-m", "penstock.cli.main", "runs", "show", "base"]
    shown = subprocess.run(
        command, env=project.environment, capture_output=True, text=True, check=True
    )
    assert "ray-train" in shown.stdout
    told = subprocess.run(
        [*command, "--json"], env=project.environment, capture_output=True, text=True, check=True
    )
    assert json.loads(told.stdout)["spec"]["launcher"] == "ray-train"


@pytest.mark.long
def test_a_worker_that_is_killed_costs_no_bit(
    trainer: Trainer, cluster: Cluster, undisturbed: Callable[[int], str]
) -> None:
    cluster.add(cpus=2)
    project = trainer.project
    script = trainer.start(failures=3)
    until("a checkpoint", lambda: project.committed("base") >= 20)
    project.signal(ranks(project, "base")["1"], signal.SIGKILL)
    out = trainer.end(script)
    assert gave(out) == ["(False, 80) {'step': 80}"], out
    run = project.newest("base")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2)
    (first, died), (second, finished) = attempts(project, "base")
    assert first < second and finished == "finished"
    assert died in ("rank 1 died", "interrupted")  # Ray may end rank 0 before it can say so
    assert project.events("base", "attempt.resumed")[0]["step"] >= 20


@pytest.mark.cluster
def test_rank_0_is_killed_and_the_model_is_prepared_by_ray(
    trainer: Trainer, cluster: Cluster, undisturbed: Callable[[int], str]
) -> None:
    """Rank 0 owned the run; the model went through Ray's own prepare_model."""
    cluster.add()
    cluster.add()
    project = trainer.project
    project.edit(("run.distribute(net)", "__import__('ray').train.torch.prepare_model(net)"))
    script = trainer.start(failures=3)
    until("a checkpoint", lambda: project.committed("base") >= 20)
    project.signal(ranks(project, "base")["0"], signal.SIGKILL)
    out = trainer.end(script)
    run = project.newest("base")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2), out
    (_, killed), (_, finished) = attempts(project, "base")
    assert (killed, finished) == ("interrupted", "finished")


@pytest.mark.cluster
def test_script_and_trainer_die_and_the_same_script_goes_on(
    trainer: Trainer, cluster: Cluster, undisturbed: Callable[[int], str]
) -> None:
    cluster.add(cpus=2)
    project = trainer.project
    script = trainer.start()
    until("a checkpoint", lambda: project.committed("base") >= 20)
    script.send_signal(signal.SIGKILL)
    script.wait()
    out = trainer.run()
    run = project.newest("base")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2), out
    assert len(attempts(project, "base")) == 2


@pytest.mark.cluster
def test_a_run_goes_from_ray_train_to_ranks_of_our_own(
    trainer: Trainer, cluster: Cluster, undisturbed: Callable[[int], str]
) -> None:
    """And a stop ends the trainer, which does not begin again what was to stop."""
    cluster.add(cpus=2)
    project = trainer.project
    script = trainer.start(pause=0.05, failures=3)
    until("a checkpoint", lambda: project.committed("base") >= 20)
    with project.stores() as stores:
        control.stop(stores, project.newest("base").id)
    out = trainer.end(script)
    assert gave(out)[0].startswith("None") and "was stopped at step" in out, out
    run = project.newest("base")
    assert run.state == "stopped" and run.step == project.committed("base") < 80
    assert len(attempts(project, "base")) == 1
    for key in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        project.environment.pop(key)
    project.edit(("pause: float = 0.01", "pause: float = 0.05"))
    project.run("base", "2")
    after = project.newest("base")
    assert after.id == run.id and after.result["weights"] == undisturbed(2)


@pytest.mark.cluster
def test_an_error_of_the_loop_is_rays_to_raise_and_to_try_again(
    trainer: Trainer, cluster: Cluster
) -> None:
    cluster.add(cpus=2)
    project = trainer.project
    project.edit(("time.sleep(config.pause)", "assert run.rank == 0 or run.global_step < 15, 'no'"))
    out = trainer.run(code=1, failures=1)
    assert "AssertionError: no" in out and "WorkerGroupError" in out
    run = project.newest("base")
    assert run.state == "failed" and run.error["code"] == "user-code"
    assert len(attempts(project, "base")) == 2


@pytest.mark.cluster
def test_a_loop_that_took_nothing_along_is_told_how(trainer: Trainer, cluster: Cluster) -> None:
    cluster.add(cpus=2)
    trainer.edit(("ps.in_ray_train(loop)", "loop"))
    out = trainer.run(code=1)
    assert "its loop took nothing along" in out and "TorchTrainer(ps.in_ray_train(loop)" in out
    assert trainer.project.newest("base") is None


@pytest.mark.cluster
@pytest.mark.root
def test_a_worker_that_does_not_see_the_scripts_disk_is_one_clear_error(
    trainer: Trainer, cluster: Cluster
) -> None:
    if os.getuid() != 0:
        assert "CI" not in os.environ, "CI must run as root, or this fault goes untested"
        pytest.skip("needs root to mount")
    project = trainer.project
    project.home.mkdir()
    cluster.add(cpus=2, hidden=project.home)
    out = trainer.run(code=1)
    assert "does not reach the script's rows: there is no" in out and "meta = " in out
    assert project.newest("base") is None


@pytest.mark.cluster
@pytest.mark.s3
def test_rows_in_postgresql_and_bytes_in_an_object_store_need_no_disk_that_is_shared(
    made: Callable[..., Project],
    cluster: Cluster,
    postgres: Any,
    s3: str,
    undisturbed: Callable[[int], str],
) -> None:
    project = made(meta=postgres.fresh(), blobs=s3)
    cluster.add(cpus=2)
    out = Trainer(project, cluster).run()
    run = project.newest("base")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2), out
    assert not (project.home / "meta.db").exists() and not (project.home / "blobs").exists()
    project.close()
