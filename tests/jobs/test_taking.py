"""Stacks of real processes, of which some cannot answer."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from penstock.base import process
from penstock.jobs.agent.hangs import HangWatch
from penstock.jobs.agent.taking import Taking
from penstock.jobs.words import COMPUTE, Words

RANK = """
import sys, time
from pathlib import Path
from penstock.jobs import stacks

def fit():
    print("ready", flush=True)
    while True:
        time.sleep(60)

stacks.register(Path(sys.argv[1]))
fit()
"""


class Gang:
    """Two real processes that sleep in `fit`, and a watch whose clock is told the time."""

    def __init__(self, folder: Path) -> None:
        self.now = 0
        self.page = Words.create(2)
        self.children = []
        (folder / "rank.py").write_text(RANK)
        self.ranks = {}
        for rank in range(2):
            file = folder / f"rank-{rank}.stacks"
            command = [sys.executable, str(folder / "rank.py"), str(file)]
            child = subprocess.Popen(command, stdout=subprocess.PIPE)
            self.children.append(child)
            self.ranks[rank] = SimpleNamespace(
                pid=child.pid, dead=False, told_end=False, stacks=file, folders=[str(folder)]
            )
            self.page.set_mark(rank, COMPUTE, 0)
        for child in self.children:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        self.watch = HangWatch(self.page, self.ranks, 5.0, lambda: self.now)

    def stop(self, rank: int) -> None:
        child = self.children[rank]
        child.send_signal(signal.SIGSTOP)
        while not process.is_stopped(process.status(child.pid)):
            time.sleep(0.001)

    def looks(self, most: int) -> int:
        """How many looks it takes from the one that finds it late; the clock stands still, so that
        no deadline passes."""
        self.now = 2_600_000_000
        assert not self.watch.look()
        self.now = 5_100_000_000
        for count in range(1, most + 1):
            if self.watch.look():
                return count
            time.sleep(0.05)
        raise AssertionError(f"nothing was found in {most} looks")

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()
            assert child.stdout is not None
            child.stdout.close()
        self.page.close()


@pytest.fixture
def gang(tmp_path: Path) -> Iterator[Gang]:
    found = Gang(tmp_path)
    yield found
    found.close()


def test_nobody_waits_for_the_stack_of_a_stopped_rank(gang: Gang) -> None:
    gang.stop(1)
    gang.looks(100)
    assert gang.watch.account is not None
    assert (gang.watch.account["rank"], gang.watch.account["where"]) == (1, None)
    assert gang.watch.account["state"] == "stopped by SIGSTOP"
    other = gang.watch.account["ranks"][0]
    assert other["where"] == "rank.py:9 in fit" and other["state"] == "sleeping"
    assert not gang.ranks[1].stacks.read_text()
    kernel = gang.watch.account["kernel"]
    assert kernel == process.kernel_stack(gang.children[1].pid) and not other["kernel"]


def test_where_all_are_stopped_the_second_look_has_the_account(gang: Gang) -> None:
    gang.stop(0)
    gang.stop(1)
    assert gang.looks(2) == 2


def test_a_rank_that_is_stopped_after_it_was_asked_is_not_waited_for(gang: Gang) -> None:
    taking = Taking(gang.ranks)
    gang.stop(1)
    taking._asked = {1: 0}  # it had been asked just before
    assert not taking.is_done() and taking.is_done()


def test_a_stopped_rank_that_goes_on_later_is_not_ended_by_what_it_was_asked(gang: Gang) -> None:
    gang.stop(1)
    gang.looks(100)
    gang.children[1].send_signal(signal.SIGCONT)
    while process.is_stopped(process.status(gang.children[1].pid)):
        time.sleep(0.001)
    assert gang.children[1].poll() is None and not gang.ranks[1].stacks.read_text()
