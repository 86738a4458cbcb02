"""The useful share of the time of a training of which a rank is killed every 12 seconds.

Three minutes from the first step (the start is not counted), 2 ranks, steps that compute 50 ms; at
every twelfth second SIGKILL of a random rank. Useful is what an undisturbed training would have
taken for the steps that were completed: their number, each counted once, times the median time of
a step. Everything else is recovery, steps done again, waiting for checkpoints, and what makes steps
slower than usual. Measured from outside, by the ranks' records. Beside it stands what Penstock's
own ledger says; the two count waits within a step differently, so they are held against each other
by what both know: the share of time in steps that were done for the first time.

Each subject has the checkpoint interval that suits it best by sqrt(2 x cost x time between kills):
Penstock and the torch script, whose checkpoints cost a few milliseconds, every 5 steps; Ray Train
every 45, as `ray.train.report` takes one every 2 seconds and makes the next one wait.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import _subjects as subjects
from benchmarks.frame.bench import Bench

PEERS = subjects.TORCHRUN | subjects.RAY_TRAIN
_KILLS_EVERY = 12.0  # seconds
_SECONDS = {True: 40.0, False: 180.0}
_START = 120.0  # seconds for a start
_STEPS = 1_000_000  # never reached
_EVERY = {"Penstock": 5, "torchrun": 5, "Ray Train": 45}  # steps
_METRIC, _LEDGER = "goodput", "goodput by its ledger"
_FIRST, _FIRST_LEDGER = "share of time in new steps", "share of time in new steps by its ledger"


def measure(bench: Bench) -> None:
    env = {**subjects.write_digits(bench.scratch), "BENCH_STEP": "0.05"}
    seconds = _SECONDS[bench.quick]
    count = int((seconds - 1) // _KILLS_EVERY)
    ranks = [bench.random.randrange(subjects.RANKS) for _ in range(count)]  # the same for all
    killed: list[int] = []

    def ours() -> None:
        home = bench.folder("home")

        def start(record: Path, given: dict[str, str]) -> Any:
            return subjects.penstock(bench, given, home, record, _STEPS)

        def account() -> None:
            _account(bench, home)

        killed.append(_time(bench, "Penstock", env, start, ranks, seconds, account))

    def torchrun() -> None:
        start = lambda to, given: subjects.torchrun(bench, given, to, _STEPS)  # noqa: E731
        _time(bench, "torchrun", env, start, ranks, seconds)

    def ray() -> None:
        start = lambda to, given: subjects.ray_train(bench, given, to, _STEPS)  # noqa: E731
        _time(bench, "Ray Train", env, start, ranks, seconds)

    bench.alternate(1, ours, torchrun, ray)
    for peer in ("torchrun", "Ray Train"):
        bench.ratio(f"Penstock / {peer}", _METRIC, over="Penstock", under=peer)
    ours = {each: bench.median("Penstock", each) for each in (_METRIC, _LEDGER, _FIRST)}
    bench.add("Penstock", "goodput less that of its ledger", "", ours[_METRIC] - ours[_LEDGER])
    apart = abs(ours[_FIRST] - bench.median("Penstock", _FIRST_LEDGER))
    bench.at_least("Penstock's goodput", 0.95, ours[_METRIC])
    bench.at_most("its ledger's time in new steps is the records', but for", 0.02, apart)
    bench.exactly("kills that met Penstock", count, sum(killed))


def _time(
    bench: Bench,
    subject: str,
    env: dict[str, str],
    start: Callable[[Path, dict[str, str]], Any],
    ranks: list[int],
    seconds: float,
    at_the_end: Callable[[], None] = lambda: None,
) -> int:
    """One training, killed again and again. returns  how many kills met a rank."""
    record = bench.folder("record")
    run = start(record, {**env, "BENCH_EVERY": str(_EVERY[subject])})
    met = 0
    try:
        subjects.wait_for(lambda: subjects.all_stepped(record), run, _START)
        began = max(subjects.steps(record, rank)[0].at for rank in range(subjects.RANKS))
        for number, rank in enumerate(ranks, 1):
            _sleep_until(began + number * _KILLS_EVERY)
            met += _kill(record, rank)
        _sleep_until(began + seconds)
        until = time.time()
        if run.poll() is not None:
            raise subjects.TimedOut(f"it ended with {run.returncode}")
        at_the_end()
        _judge(bench, subject, record, began, until)
    except subjects.TimedOut as error:
        bench.note(f"{subject} did not get through: {error}")
        bench.say((record / "log").read_text(errors="replace")[-800:])
    finally:
        bench.children.clear()
    bench.add(subject, "kills that met a rank", "", met)
    return met


def _kill(record: Path, rank: int) -> bool:
    """Whether there was somebody to kill: a gang that is not back yet has nobody."""
    try:
        os.kill(subjects.steps(record, rank)[-1].pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _sleep_until(at: float) -> None:
    time.sleep(max(0.0, at - time.time()))


def _judge(bench: Bench, subject: str, record: Path, began: float, until: float) -> None:
    """Of both ranks together, as a ledger counts."""
    useful, new, again, usual = 0.0, 0.0, 0, []
    for rank in range(subjects.RANKS):
        done = [step for step in subjects.steps(record, rank) if began <= step.at <= until]
        pairs = list(pairwise(done))
        median = statistics.median(b.at - a.at for a, b in pairs if a.pid == b.pid)
        highest = done[0].step
        for before, step in pairs:
            if step.step > highest:  # the first step of a gang has no record before it
                new += step.at - before.at if step.pid == before.pid else median
            highest = max(highest, step.step)
        distinct = len({step.step for step in done[1:]})
        useful += distinct * median
        again += len(done) - 1 - distinct
        usual.append(median)
    whole = subjects.RANKS * (until - began)
    bench.add(subject, _METRIC, "", useful / whole)
    bench.add(subject, _FIRST, "", new / whole)
    bench.add(subject, "a step", "s", statistics.mean(usual))
    bench.add(subject, "steps done again, a rank", "", again / subjects.RANKS)


def _account(bench: Bench, home: Path) -> None:
    """What Penstock itself says at this moment, and the shares of what was not useful."""
    import penstock

    opened = penstock.connect(home)
    try:
        found = opened.account("first").ledger
    finally:
        opened.close()
    bench.add("Penstock", _LEDGER, "", found.goodput or 0.0)
    whole = found.rank_seconds - found.seconds["start-up"]
    inside = ("productive", "data", "checkpoint", "comparing")
    new = sum(found.seconds[name] for name in inside)
    bench.add("Penstock", _FIRST_LEDGER, "", new / whole)
    for name in ("recovery", "recomputed", "checkpoint", "data", "comparing"):
        bench.add("Penstock", f"  share of {name}", "", found.seconds[name] / whole)
