"""Who is alive, exactly; and no child outlives its parent."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest

from penstock.base.process import Identity, boot_id, kill_quietly, start_time

DEADLINE = 20.0


def wait_until(condition) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_this_process_is_alive():
    mine = Identity.mine()
    assert (mine.pid, mine.boot) == (os.getpid(), boot_id())
    assert mine.is_dead() is False


def test_an_identity_survives_as_text():
    mine = Identity.mine()
    assert Identity.parse(str(mine)) == mine


@pytest.mark.faults
def test_a_killed_process_is_dead_even_before_anybody_waited_for_it(sleeper):
    identity = Identity.of(sleeper.pid)
    assert identity.is_dead() is False
    sleeper.kill()
    wait_until(lambda: identity.is_dead())  # a zombie by now
    sleeper.wait()
    assert identity.is_dead() is True
    assert start_time(sleeper.pid) is None


def test_another_process_with_the_same_pid_is_not_the_same(sleeper):
    identity = Identity.of(sleeper.pid)
    assert dataclasses.replace(identity, started=identity.started - 1).is_dead() is True


def test_a_process_of_an_earlier_boot_is_dead_and_one_elsewhere_unknown():
    mine = Identity.mine()
    assert dataclasses.replace(mine, boot="earlier").is_dead() is True
    assert dataclasses.replace(mine, host="elsewhere").is_dead() is None


def test_killing_what_is_gone_is_no_error(sleeper):
    sleeper.kill()
    sleeper.wait()
    kill_quietly(sleeper.pid)


PARENT = """
import os, sys, time
from penstock.base.process import die_with_parent
parent = os.getpid()
child = os.fork()
if child == 0:
    die_with_parent(parent)
    print(os.getpid(), flush=True)
    time.sleep(600)
time.sleep(600)
"""


@pytest.mark.faults
def test_a_child_dies_with_its_parent():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = Identity.of(int(parent.stdout.readline()))
    assert child.is_dead() is False
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: child.is_dead())
    parent.stdout.close()


LATE = """
import os
from penstock.base.process import die_with_parent
die_with_parent(os.getppid() + 1)  # a parent that is already another one
print("went on")
"""


def test_a_child_whose_parent_is_already_gone_exits_at_once():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
