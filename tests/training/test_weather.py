"""Every kind of fault, at random points of one training: no bit of the weights changes, and
nothing is left behind. `make chaos` strikes 100 times; PENSTOCK_CHAOS_SEED=N repeats a run."""

import os
import subprocess
import textwrap
import time

import pytest
from tests.blobs.conftest import Proxy
from tests.training.conftest import PROJECT
from tests.training.weather import LEASE, JumpingClock, Weather, left_behind

pytestmark = [
    pytest.mark.torch,
    pytest.mark.faults,
    pytest.mark.s3,
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0, reason="mounts need root"),
]

SOURCE = (
    textwrap.dedent(PROJECT)
    .replace("time.sleep(config.pause)", "time.sleep(0 if Path('calm').exists() else config.pause)")
    .replace("pause: float = 0.01", "pause: float = 0.1")
    .replace("checkpoint_every=10", "checkpoint_every=3")
    .replace("import time\n", "import time\nfrom pathlib import Path\n")
)


@pytest.fixture
def home_of_its_own(made, moto, bucket, tmp_path):
    """`home_of_its_own(epochs)`: a project whose home is a file system of 40 MB, whose blobs are
    in an object store behind a proxy, and whose clock may jump."""
    proxy = Proxy(moto)
    proxy.start()
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    mounted = []

    def run(epochs):
        url = f"s3://{bucket}/p?endpoint={proxy.url}&region=us-east-1&deadline=15&timeout=5"
        source = SOURCE.replace("epochs: int = 10", f"epochs: int = {epochs}")
        project = made(source=source, blobs=url, lease_seconds=LEASE)
        project.home.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", project.home], check=True
        )
        mounted.append(project)
        clock = JumpingClock(tmp_path)
        project.environment |= {**clock.environment, "XDG_RUNTIME_DIR": str(runtime)}
        project.environment["PYTHONFAULTHANDLER"] = "1"  # stacks of what does not get on
        return project, clock, proxy, runtime

    yield run
    for project in mounted:
        project.close()
        subprocess.run(["umount", "-l", project.home], check=True)
    proxy.release.set()
    proxy.stop()


def weathered(home_of_its_own, bucket, dice, faults, epochs, refuses):
    """A training struck by that many faults ends with the weights of one that nobody touched."""
    project, clock, proxy, runtime = home_of_its_own(epochs)
    (project.folder / "calm").touch()
    assert project.start("twin", "2").wait(1500) == 0
    (project.folder / "calm").unlink()
    weather = Weather(project, dice, clock, proxy, bucket, refuses)
    names = list(weather.faults)
    dice.shuffle(names)  # each comes once before any comes twice
    try:
        while len(weather.struck) < faults and not weather.is_over():
            weather.tend()
            time.sleep(dice.uniform(0, 0.5))
            weather.strike(names[len(weather.struck) % len(names)])
    finally:
        (project.folder / "calm").touch()
    clock.jump_to(0)
    while not weather.is_over():
        weather.tend()
    assert len(weather.struck) == faults, "the run was over too early"
    run = project.newest("run")
    assert run.state == "finished" and run.step == 8 * epochs
    assert run.result["weights"] == project.newest("twin").result["weights"]
    weather.script.communicate(timeout=60)
    project.nothing_left()
    assert left_behind(project, runtime) == []


@pytest.mark.long
@pytest.mark.timeout(400)
def test_faults_of_every_kind_change_no_bit_and_leave_nothing(home_of_its_own, bucket, dice):
    weathered(home_of_its_own, bucket, dice, faults=6, epochs=60, refuses=3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_faults_change_no_bit_and_leave_nothing(home_of_its_own, bucket, dice):
    weathered(home_of_its_own, bucket, dice, faults=100, epochs=500, refuses=10)
