"""Command -> first completed step, cold and warm, beside a bare torch loop and torchrun.

Cold is a new process, `python train.py`, its data prepared before ("new home": prepared in it too).
Warm is a second `ps.train` in one script. All write the same record; a start ends with the first
step that all ranks completed. The bare loop is one process without a group: the floor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import _subjects as subjects
from benchmarks.frame.bench import Bench

PEERS = subjects.TORCHRUN
_STEPS = 10
_TIMEOUT = 60.0  # seconds for a start
_METRIC = "command to first step"


def measure(bench: Bench) -> None:
    env = subjects.write_digits(bench.scratch)
    home = bench.folder("home")
    subjects.penstock(bench, env, home, bench.folder("record"), _STEPS).wait(timeout=_TIMEOUT)

    def cold(subject: str, where: Callable[[], Path], *second: Path) -> None:
        def start(record: Path) -> Any:
            return subjects.penstock(bench, env, where(), record, _STEPS, *second)

        _time(bench, subject, start, subjects.RANKS)

    def new_home() -> None:
        cold("Penstock, new home", lambda: bench.folder("home"))

    def ours() -> None:
        second = bench.folder("record")
        cold("Penstock, cold", lambda: home, second)
        began = float((second / "began").read_text())
        bench.add("Penstock, warm", "ps.train to first step", "s", _first(second, 2) - began)

    def torchrun() -> None:
        _time(bench, "torchrun", lambda to: subjects.torchrun(bench, env, to, _STEPS), 2)

    def bare() -> None:
        _time(bench, "bare loop", lambda to: subjects.bare(bench, env, to, _STEPS), 1)

    def importing() -> None:
        began = time.monotonic()
        bench.start([bench.python("torch"), "-c", "import torch"], env=env).wait(timeout=_TIMEOUT)
        bench.add("import torch", "command to end", "s", time.monotonic() - began)

    rounds = bench.rounds(quick=3, full=10)
    bench.alternate(rounds, importing, bare, torchrun, ours, new_home)
    for subject in ("Penstock, cold", "Penstock, new home", "torchrun"):
        bench.ratio(f"{subject} / bare loop", _METRIC, over=subject, under="bare loop")


def _time(bench: Bench, subject: str, start: Callable[[Path], Any], ranks: int) -> None:
    """One start, to the first step; then wait for the end, so that nothing runs beside the next."""
    record = bench.folder("record")
    began = time.time()
    run = start(record)
    subjects.wait_for(lambda: _all_stepped(record, ranks), run, _TIMEOUT)
    bench.add(subject, _METRIC, "s", _first(record, ranks) - began)
    run.wait(timeout=_TIMEOUT)


def _all_stepped(record: Path, ranks: int) -> bool:
    return all(subjects.steps(record, rank) for rank in range(ranks))


def _first(record: Path, ranks: int) -> float:
    """When the last of the ranks had completed its first step."""
    return max(subjects.steps(record, rank)[0].at for rank in range(ranks))
