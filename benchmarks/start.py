"""Command -> first completed step, cold and warm, beside a bare loop, torchrun and Ray Train.

Cold is a new process, `python train.py`, its data prepared before ("new home": prepared in it,
too). Warm is a second `ps.train` in one script, from its call. The files of Python and torch are
in the page cache and compiled on all sides. All write the same record; a start ends with the first
step that all ranks completed. The bare loop is one process without a group: the floor. Penstock's
processor time is that of both its runs.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import _subjects as subjects
from benchmarks.frame.bench import Bench

PEERS = subjects.TORCHRUN | subjects.RAY_TRAIN
_STEPS = 10
_TIMEOUT = 90.0  # seconds for a start
_COLD = "command to first step"
_WARM = "ps.train to first step"
_CPU = "processor time, to the end"
_ABOVE = 1.2  # seconds that a cold start may come later than the bare loop
_SECOND = 0.2  # seconds for a second ps.train of a script


def measure(bench: Bench) -> None:
    env = subjects.write_digits(bench.scratch)
    home = bench.folder("home")
    subjects.penstock(bench, env, home, bench.folder("record"), _STEPS).wait(timeout=_TIMEOUT)

    def importing() -> None:
        began = time.monotonic()
        bench.start([bench.python("torch"), "-c", "import torch"], env=env).wait(timeout=_TIMEOUT)
        bench.add("import torch", "command to end", "s", time.monotonic() - began)

    def bare() -> None:
        _time(bench, "bare loop", 1, lambda to: subjects.bare(bench, env, to, _STEPS))

    def torchrun() -> None:
        _time(bench, "torchrun, 2 ranks", 2, lambda to: subjects.torchrun(bench, env, to, _STEPS))

    def ray_train() -> None:
        _time(bench, "Ray Train, 2 ranks", 2, lambda to: subjects.ray_train(bench, env, to, _STEPS))

    def penstock(ranks: int) -> None:
        subject = f"Penstock, {ranks} rank{'s' * (ranks > 1)}"
        second = bench.folder("record")

        def start(record: Path) -> Any:
            return subjects.penstock(bench, env, home, record, _STEPS, second, ranks=ranks)

        if _time(bench, subject, ranks, start):
            began = float((second / "began").read_text())
            bench.add(subject, _WARM, "s", _first(second, ranks) - began)

    def new_home() -> None:
        folder = bench.folder("home")
        start = lambda to: subjects.penstock(bench, env, folder, to, _STEPS)  # noqa: E731
        _time(bench, "Penstock, 2 ranks, new home", 2, start)

    rounds = bench.rounds(quick=3, full=10)
    bench.alternate(
        *(rounds, importing, bare, lambda: penstock(1), torchrun, lambda: penstock(2), new_home),
        ray_train,
    )
    for over, under in (
        ("Penstock, 1 rank", "bare loop"),
        ("Penstock, 2 ranks", "bare loop"),
        ("torchrun, 2 ranks", "bare loop"),
        ("Penstock, 2 ranks", "torchrun, 2 ranks"),
        ("Ray Train, 2 ranks", "Penstock, 2 ranks"),
    ):
        bench.ratio(f"{over} / {under}", _COLD, over=over, under=under)
    floor = bench.median("bare loop", _COLD)
    for subject in ("Penstock, 1 rank", "Penstock, 2 ranks"):
        above = bench.median(subject, _COLD) - floor
        bench.at_most(f"{subject}, cold, above the bare loop", _ABOVE, above, "s")
        bench.at_most(f"{subject}, second run", _SECOND, bench.median(subject, _WARM), "s")


def _time(bench: Bench, subject: str, ranks: int, start: Callable[[Path], Any]) -> bool:
    """One start, to the first step; then wait for the end, so that nothing runs beside the next.

    returns  whether it came to its end; if not, that is noted
    """
    record = bench.folder("record")
    began = time.time()
    spent = _processor_time()
    run = start(record)
    try:
        subjects.wait_for(lambda: subjects.all_stepped(record, ranks), run, _TIMEOUT)
        bench.add(subject, _COLD, "s", _first(record, ranks) - began)
        subjects.wait_for(lambda: run.poll() == 0, run, _TIMEOUT)
        bench.add(subject, _CPU, "s", _processor_time() - spent)
    except subjects.TimedOut as error:
        bench.say((record / "log").read_text(errors="replace")[-800:])
        bench.note(f"{subject} did not start, or not end: {error}")
        bench.children.clear()
        return False
    return True


def _processor_time() -> float:
    """Seconds of all processes that ended below this one and were collected."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _first(record: Path, ranks: int) -> float:
    """When the last of the ranks had completed its first step."""
    return max(subjects.steps(record, rank)[0].at for rank in range(ranks))
