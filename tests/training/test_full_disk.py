"""A disk that fills up while a run saves: nothing that was saved is lost, and it can go on."""

import contextlib
import os
import subprocess

import pytest

from penstock import checkpoints

pytestmark = [
    pytest.mark.torch,
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.getuid() != 0, reason="mounts need root"),
]


@pytest.fixture
def small_home(project):
    """The project's home on a file system of 12 MB."""
    project.home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", project.home], check=True)
    yield project
    project.nothing_left()
    subprocess.run(["umount", "-l", project.home], check=True)


def fill(project):
    """Take all the room there is, to the last page."""
    with (
        (project.home / "ballast").open("wb", buffering=0) as ballast,
        contextlib.suppress(OSError),
    ):
        while True:
            ballast.write(bytes(4096))


def test_a_full_disk_ends_the_run_with_its_reason_and_room_lets_it_go_on(small_home, undisturbed):
    project = small_home
    script = project.start("run", "2")
    project.until("step 20", lambda: project.committed("run") >= 20)
    fill(project)
    out, _ = script.communicate(timeout=90)
    assert script.returncode == 7, out
    assert "error [disk-full]" in out and "Traceback" not in out
    project.nothing_left()
    (project.home / "ballast").unlink()
    with project.stores() as stores, stores.meta.read() as db:
        rows = db.checkpoints(project.newest("run").id)
        assert rows and all(checkpoints.verify(row, stores.blobs) == [] for row in rows)
    project.run("run", "2")
    run = project.newest("run")
    assert run.state == "finished" and run.result["weights"] == undisturbed(2)
