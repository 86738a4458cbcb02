"""A script that was submitted to a Ray cluster as a job of its: the run is on that cluster."""

import re
import subprocess
import sys
from contextlib import closing

import pytest
from tests.ray_nodes import Cluster
from tests.training.engines import nothing_is_left, on_cluster

pytestmark = [pytest.mark.interop, pytest.mark.ray, pytest.mark.torch, pytest.mark.timeout(400)]
pytest.importorskip("ray.dashboard.modules.job.sdk", reason="needs ray[default]")
pytest.importorskip("opencensus", reason="needs ray[default]")

PAUSE = ("pause: float = 0.01", "pause: float = 0.1")


class Jobs:
    """What `ray job` does, on one cluster."""

    def __init__(self, cluster):
        self._cluster = cluster

    def __call__(self, what, *words):
        address = ["--address", f"http://127.0.0.1:{self._cluster.jobs_port}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "job", what, *address, *words]
        done = subprocess.run(
            command, env=self._cluster.environment, capture_output=True, text=True, timeout=300
        )
        return done.stdout + done.stderr

    def submit(self, project, *options):
        """Its script, by a shell as people do. The run's engine is named by nothing but "ray"."""
        own = {key: value for key, value in project.environment.items() if "PENSTOCK" in key}
        own["PENSTOCK_ENGINE"] = "ray"
        settings = " ".join(f"{key}={value}" for key, value in own.items())
        script = f"cd {project.folder} && {settings} exec {sys.executable} train.py run 2"
        return self("submit", *options, "--", "sh", "-c", script)


@pytest.fixture
def jobs():
    with closing(Cluster(jobs=True)) as cluster:
        for _ in range(2):
            cluster.add()
        found = Jobs(cluster)
        found.cluster = cluster
        yield found


def test_a_script_that_was_submitted_runs_on_the_cluster_that_it_was_submitted_to(
    jobs, made, undisturbed
):
    project = on_cluster(made, jobs.cluster)
    said = jobs.submit(project)
    assert "succeeded" in said and "RUN run-" in said, said
    run = project.newest("run")
    assert run.result["weights"] == undisturbed(2)
    ranks = project.events("run", "gang.started")[-1]["where"]
    assert len({each["node"] for each in ranks.values()}) == 2
    nothing_is_left(project, jobs.cluster)


def test_a_job_that_is_stopped_saves_and_another_one_goes_on(jobs, made, undisturbed):
    project = on_cluster(made, jobs.cluster)
    project.edit(PAUSE)
    said = jobs.submit(project, "--no-wait")
    (name,) = set(re.findall(r"raysubmit_\w+", said))
    project.until("step 10", lambda: project.committed("run") >= 10, 120)
    assert "stopped" in jobs("stop", name)
    project.until("its end", lambda: not project.leftovers(), 60)
    before = project.committed("run")
    assert before < 80 and not project.events("run", "model.published")
    assert "succeeded" in jobs.submit(project)
    run = project.newest("run")
    assert run.step == 80 and run.result["weights"] == undisturbed(2)
    assert project.events("run", "attempt.started")[-1]["from_step"] >= before
    nothing_is_left(project, jobs.cluster)
