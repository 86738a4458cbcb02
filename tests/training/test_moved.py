"""A project that was moved, home and all, while nothing ran."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.timeout(180)]


@pytest.fixture
def stopped(project):
    """A run that was stopped, in a folder that was then moved: the new folder."""
    script = project.start("base", "1")
    project.until("step 20", lambda: project.committed("base") >= 20)
    project.signal(script.pid, signal.SIGINT)
    script.communicate(timeout=60)
    project.close()
    there = project.folder.parent / "moved"
    shutil.move(project.folder, there)
    return there


def say(folder, *words):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def test_a_run_of_a_home_that_was_moved_goes_on_by_its_script_and_says_so_elsewhere(stopped):
    code, out = say(stopped, "-m", "penstock.cli.main", "runs", "resume", "base")
    assert code == 2 and "Traceback" not in out, out
    assert "moved" in out and "run the script again" in out.lower()
    code, out = say(stopped, "train.py", "base", "1")
    assert code == 0 and "resumed at step" in out, out
    code, out = say(stopped, "-m", "penstock.cli.main", "runs", "verify", "base")
    assert code == 0, out
