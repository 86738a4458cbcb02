"""What it costs that weights do not depend on the number of ranks: reduction="ordered".

Two ranks of one thread, a global batch of 256 rows in 8 micro-batches, four square layers: 16.8
million parameters at width 2048 (67 MB of gradients), 1.05 million at 512. "mean" adds up gradients
in place and lets DistributedDataParallel reduce them beside the last backward; "ordered" sums in a
tree, then exchanges gradients when all are there. Nobody else offers the second, so the peer is the
first. Only steps of the optimiser are timed, the first five left out.

Prediction: 1.3 times the step at width 512; 1.4 at 2048: per rank three more passes of adding over
all gradients, and an exchange of 67 MB over loopback (some 60 ms) that nothing hides, beside 32
passes of matrix products (some 700 ms).
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from benchmarks.frame.bench import Bench

_SUBJECT = Path(__file__).parent / "subjects" / "ordered_step.py"
_TIMEOUT = 300.0
_MICRO_BATCHES = 8
_WIDTHS = (512, 2048)


def measure(bench: Bench) -> None:
    steps = 12 if bench.quick else 30

    def train(reduction: str, width: int) -> None:
        result = bench.folder("result") / "result.json"
        asked = (bench.folder("home"), result, reduction, 2, _MICRO_BATCHES, width, steps)
        run = bench.start([sys.executable, _SUBJECT, *map(str, asked)])
        if run.wait(timeout=_TIMEOUT):
            bench.note(f"{reduction} at width {width} ended with {run.returncode}")
            return
        times = json.loads(result.read_text())["times"]
        bench.add(_subject(reduction, width), "step", "ms", 1000 * statistics.median(times))

    bench.alternate(
        bench.rounds(quick=1, full=5),
        *(
            lambda reduction=reduction, width=width: train(reduction, width)
            for width in _WIDTHS
            for reduction in ("mean", "ordered")
        ),
    )
    for width in _WIDTHS:
        over, under = _subject("ordered", width), _subject("mean", width)
        bench.ratio(f"{over} / mean", "step", over=over, under=under)


def _subject(reduction: str, width: int) -> str:
    return f"{reduction}, width {width}"
