"""What accounting costs a step: all that a rank tells of its time, around a step that does nothing.

One process, no ranks beside it; two collective operations are timed in each step, as a backward and
an exchange of buffers are. CPU time of the thread, so that other work on the machine counts little.
The bound is 10 microseconds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.frame.bench import Bench

_SUBJECT = Path(__file__).parent / "subjects" / "accounting_step.py"
_BOUND = 10.0  # microseconds


def measure(bench: Bench) -> None:
    def step() -> None:
        result = bench.folder("result") / "result.json"
        asked = [sys.executable, _SUBJECT, result, 20_000 if bench.quick else 100_000]
        if bench.start([str(each) for each in asked]).wait(timeout=120):
            bench.note("the subject failed")
            return
        seconds = json.loads(result.read_text())["seconds"]
        bench.add("accounting", "a step", "us", 1e6 * seconds)

    bench.alternate(bench.rounds(quick=3, full=10), step)
    bench.at_most("accounting of a step", _BOUND, bench.median("accounting", "a step"), "us")
