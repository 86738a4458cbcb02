"""Ranks that a launcher started and that hang: found, named, ended, and started again by it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.training.conftest import Project, until
from tests.training.test_hangs import LOCK, ended_well, hanging, penstock
from tests.training.test_launched import TORCHRUN, attempts

from penstock.base import process
from penstock.base.settings import Settings
from penstock.jobs.stores import Stores, open_stores
from penstock.jobs.words import COMPUTE
from penstock.records import Attempt, Run
from penstock.training.launched.page import open_words
from penstock.training.launched.watch import is_debugged, patience
from penstock.training.launched.watcher import ENDED_BY

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

# -- the watcher, and processes that are no ranks of any training -------------------------------

RANK = """
import sys, time
from pathlib import Path
from penstock.jobs import stacks
from penstock.training.launched import page

def fit():
    print("ready", flush=True)
    {body}

folder, rank, file = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
stacks.register(file)
page.announce(folder, rank, file, [str(Path(__file__).parent)])
fit()
"""
ASLEEP = "time.sleep(600)"
IN_C = "sum(iter(int, 1))  # holds Python's lock, and never gives it back"
WATCHER = [sys.executable, "-m", "penstock.training.launched.watcher"]


class Machine:
    """A run of one attempt in real stores, ranks on this machine, and a watcher."""

    def __init__(self, folder: Path, bodies: list[str], others: int = 0) -> None:
        self.stores: Stores = open_stores(Settings(home=folder / "home"))
        me = str(process.Identity.mine())
        with self.stores.meta.write() as tx:
            tx.add_run(Run("run-a", "base", "train", "running", {"world_size": 2}))
            lease = tx.take_lease("run/run-a", me, 30.0)
            tx.add_attempt(Attempt("run-a", 1, lease.generation, tx.now(), 0))
        self.shared = folder / "gang"
        self.shared.mkdir()
        self.files = [folder / f"rank-{rank}.stacks" for rank in range(len(bodies))]
        self.page = open_words(self.shared, len(bodies) + others)
        self.ranks = [self._rank(folder, rank, body) for rank, body in enumerate(bodies)]
        for rank, child in enumerate(self.ranks):
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
            self.page.set_step(rank, 7)
            self.page.set_mark(rank, COMPUTE, time.monotonic_ns())
        spec = {
            "folder": str(self.shared), "meta": self.stores.layout.meta_url, "run_id": "run-a",
            "attempt": 1, "generation": lease.generation, "hang_seconds": 1.0,
            "world_size": len(bodies) + others, "here": len(bodies),
        }  # fmt: skip
        pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
        starter = f"import os, json, sys; spec = json.loads(sys.argv[1]); {STARTS}"
        self.watcher = subprocess.Popen([sys.executable, "-c", starter, json.dumps(spec)], **pipes)

    def _rank(self, folder: Path, rank: int, body: str) -> subprocess.Popen[bytes]:
        script = folder / f"rank{rank}.py"
        script.write_text(RANK.format(body=body))
        words = [sys.executable, str(script), str(self.shared), str(rank), str(self.files[rank])]
        return subprocess.Popen(words, stdout=subprocess.PIPE)

    def recorded(self) -> tuple[list[dict[str, Any]], Attempt]:
        with self.stores.meta.read() as db:
            events = db.events(subject="run/run-a", limit=100)
            return [e.body for e in events if e.kind == "rank.hung"], db.attempts("run-a")[0]

    def close(self) -> None:
        for child in (*self.ranks, self.watcher):
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    stream.close()
        self.stores.close()


# the watcher's parent: hands its own stdin on, as a rank would, and ends when that ends
STARTS = f"""
import subprocess
child = subprocess.Popen({WATCHER!r}, stdin=subprocess.PIPE)
child.stdin.write(json.dumps(spec | {{"parent": os.getpid()}}).encode() + b"\\n")
child.stdin.flush()
sys.stdin.read()
child.stdin.close()
sys.exit(child.wait())
""".strip().replace("\n", "; ")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    made: list[Machine] = []

    def make(*bodies: str, others: int = 0) -> Machine:
        made.append(Machine(tmp_path, list(bodies), others))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_rank_that_holds_pythons_lock_is_found_recorded_and_ended(
    machine: Callable[..., Machine],
) -> None:
    here = machine(IN_C, ASLEEP)
    assert [child.wait(20) for child in here.ranks] == [-ENDED_BY, -ENDED_BY]
    (told,), attempt = here.recorded()
    assert (told["rank"], told["step"], told["where"]) == (0, 7, "rank0.py:9 in fit")
    assert (told["attempt"], told["ranks"][1]["where"]) == (1, "rank1.py:9 in fit")
    assert attempt.cause == "rank 0 hung at step 7 (rank0.py:9 in fit)"
    assert attempt.to_step == 7 and attempt.detail["ranks"] == told["ranks"]
    _, said = here.watcher.communicate(timeout=20)
    assert here.watcher.returncode == 0 and not here.shared.exists()
    assert b"rank 0 hangs at step 7 (rank0.py:9 in fit), no sign of life" in said


def test_a_stopped_rank_is_ended_too(machine: Callable[..., Machine]) -> None:
    here = machine(ASLEEP, ASLEEP)
    here.ranks[1].send_signal(signal.SIGSTOP)
    assert [child.wait(20) for child in here.ranks] == [-ENDED_BY, -ENDED_BY]
    (told,), _ = here.recorded()
    assert (told["rank"], told["state"]) == (1, "stopped by SIGSTOP")


def test_a_stale_gang_is_ended_and_writes_nothing(machine: Callable[..., Machine]) -> None:
    here = machine(ASLEEP)
    with here.stores.meta.write() as tx:
        held = tx.find_lease("run/run-a")
        assert held is not None
        tx.release_lease(held)
        tx.take_lease("run/run-a", held.holder, 30.0)
    assert here.ranks[0].wait(20) == -ENDED_BY
    assert here.recorded()[0] == [] and here.recorded()[1].ended_at is None


def test_who_waits_for_ranks_of_another_machine_is_let_be(machine: Callable[..., Machine]) -> None:
    """A rank there may be at something slow; where it is that hangs, it is seen."""
    waits = f"exec(compile('{ASLEEP}', '/x/torch/distributed/c10d.py', 'exec'))"
    here = machine(waits, others=1)
    until("its stacks", lambda: here.files[0].read_text().count("c10d.py") >= 2)
    assert here.ranks[0].poll() is None and here.recorded()[0] == []


def test_ranks_that_took_their_leave_are_let_be_and_the_watcher_ends_with_its_rank(
    machine: Callable[..., Machine],
) -> None:
    here = machine(ASLEEP)
    (here.shared / "rank-0.json").unlink()
    time.sleep(1.6)  # more than may pass without a sign of life
    assert here.ranks[0].poll() is None
    assert here.watcher.stdin is not None
    here.watcher.stdin.close()
    assert here.watcher.wait(20) == 0 and here.ranks[0].poll() is None


def hung(number: int, from_step: int) -> Attempt:
    return Attempt("run-a", number, number, 0.0, from_step, detail={"waiting": [0]})


@pytest.mark.parametrize(
    "earlier, committed, seconds",
    [
        ([], 0, 10.0),
        ([hung(1, 20)], 20, 20.0),
        ([hung(1, 0), hung(2, 0), hung(3, 0)], 0, 40.0),  # it does not grow for ever
        ([hung(1, 0)], 20, 10.0),  # there is a newer checkpoint
        ([hung(1, 20), Attempt("run-a", 2, 2, 0.0, 20)], 20, 10.0),  # a death came between
    ],
)
def test_each_hang_in_a_row_doubles_the_patience(
    earlier: list[Attempt], committed: int, seconds: float
) -> None:
    stores: Any = SimpleNamespace(settings=Settings(hang_seconds=10.0))
    assert patience(stores, earlier, committed) == seconds
    stores.settings = Settings(hang_seconds="off")
    assert patience(stores, earlier, committed) is None


def test_nobody_watches_under_a_debugger_that_lives_in_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    assert not is_debugged()
    monkeypatch.setitem(sys.modules, "pydevd", SimpleNamespace())  # type: ignore[arg-type]
    assert is_debugged()


# -- torchrun -----------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.long
@pytest.mark.parametrize("hangs", ["while True: pass", LOCK], ids=["a loop", "a lock"])
def test_a_rank_that_hangs_under_torchrun_is_named_and_started_again(
    made: Callable[..., Project], undisturbed: Callable[[int], str], hangs: str
) -> None:
    project = made(hang_seconds=2)
    line = hanging(project, hangs)
    out = project.run("run", "2", under=TORCHRUN)
    (told,) = project.events("run", "rank.hung")
    assert (told["rank"], told["step"], told["attempt"]) == (1, 25, 1)
    assert told["where"] == f"train.py:{line} in fit" and told["waiting"] == [0]
    assert told["ranks"][0]["waits"] and told["ranks"][0]["where"].startswith("train.py:")
    assert f"rank 1 hangs at step 25 (train.py:{line} in fit)" in out
    assert f"exitcode: {-ENDED_BY}" in out
    (_, cause), (_, finished) = attempts(project, "run")
    assert cause == f"rank 1 hung at step 25 (train.py:{line} in fit)" and finished == "finished"
    shown = penstock(project, "runs", "show", "run")
    assert cause in " ".join(shown.split())
    logs = project.home / "runs" / project.newest("run").id / "logs"  # type: ignore[union-attr]
    assert f"line {line} in fit" in (logs / "rank-1.stacks").read_text()
    assert "in fit" in (logs / "rank-0.stacks").read_text()
    ended_well(project, undisturbed)
    project.nothing_left()
