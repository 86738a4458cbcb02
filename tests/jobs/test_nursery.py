"""A nursery forks processes that are as new ones, and that need it no more."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from penstock.base.process import start_time
from penstock.jobs.nursery import owner
from penstock.jobs.nursery.asking import ask_for_agent

DEED = """
import json, os, signal, sys, time

def main(argv):
    print(json.dumps(sorted(os.environ)), os.getsid(0) == os.getpid(), flush=True)
    print([signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGCHLD)] == [0, 0], flush=True)
    if argv[0] == "sleep":
        time.sleep(60)
    if argv[0] == "raise":
        raise ValueError("as it is")
    return int(argv[0])
"""


@pytest.fixture
def surroundings(tmp_path, monkeypatch):
    (tmp_path / "deed.py").write_text(DEED)
    monkeypatch.setattr(owner, "_own", None)
    yield {"preload": ["json"], "image_env": {"ONLY": "images"}, "cwd": str(tmp_path)}
    owner.end()


def until(what):
    deadline = time.monotonic() + 60
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def started(tmp_path, *arguments):
    """A deed, from a nursery as soon as it is ready."""
    command = [sys.executable, "-m", "deed", *arguments]
    return until(lambda: owner.start(command, tmp_path / "log"))


def test_what_it_forks_ends_with_its_own_code_and_has_the_scripts_environment(
    surroundings, tmp_path
):
    owner.begin(surroundings, ())
    assert started(tmp_path, "3").wait() == 3
    assert started(tmp_path, "raise").wait() == 1
    said = (tmp_path / "log").read_text()
    assert "ValueError: as it is" in said and "ONLY" not in said
    assert said.count("True") == 4 and '"PATH"' in said
    process = started(tmp_path, "sleep")
    assert process.poll() is None and process.wait(0.01) is None
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_one_is_used_while_nothing_changes_and_what_it_forked_needs_it_no_more(
    surroundings, tmp_path, monkeypatch
):
    owner.begin(surroundings, ())
    first = owner._own
    process = started(tmp_path, "sleep")
    owner.begin(surroundings, ())
    assert owner._own is first
    monkeypatch.setenv("CHANGED", "1")
    owner.begin(surroundings, ())
    assert owner._own is not first and start_time(first.pid) is None
    owner.begin({**surroundings, "image_env": {}}, ())
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -1  # nobody can tell it any more


def test_an_agent_of_other_surroundings_is_refused(surroundings, tmp_path):
    owner.begin(surroundings, ())
    owner.serve(surroundings, tmp_path)
    other = {**surroundings, "preload": ["json", "torch"]}
    assert not ask_for_agent(tmp_path, other, tmp_path / "spec.json", tmp_path / "log")
    owner.end()
    assert not ask_for_agent(tmp_path, surroundings, tmp_path / "spec.json", tmp_path / "log")


def test_it_lasts_longer_than_the_thread_that_began_it():
    """PDEATHSIG comes when that thread ends."""
    code = (
        "import os, time; from penstock.base import process;"
        "process.die_with_parent(os.getppid()); print('up', flush=True); time.sleep(60)"
    )
    begin = lambda: subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)  # noqa: E731
    over, found = threading.Event(), []
    thread = threading.Thread(target=lambda: found.append(owner._by_a_lasting_thread(begin, over)))
    thread.start()
    thread.join()
    (process,) = found
    assert process.stdout.readline() == b"up\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.1)
    over.set()  # as `close` does
    assert process.wait(60) == -signal.SIGKILL
    process.stdout.close()
