"""The frame itself: two tiny commands, of which one waits for 50 ms."""

from __future__ import annotations

import sys
import time

from benchmarks.frame.bench import Bench


def measure(bench: Bench) -> None:
    def time_one(subject: str, code: str) -> None:
        began = time.perf_counter()
        bench.start([sys.executable, "-I", "-S", "-c", code]).wait(timeout=30)
        bench.add(subject, "took", "s", time.perf_counter() - began)

    bench.alternate(
        bench.rounds(quick=3, full=10),
        lambda: time_one("nothing", "pass"),
        lambda: time_one("waiting", "import time; time.sleep(0.05)"),
    )
    bench.ratio("waiting / nothing", "took", over="waiting", under="nothing")
    bench.at_least("waiting takes its time", 0.05, bench.median("waiting", "took"), "s")
