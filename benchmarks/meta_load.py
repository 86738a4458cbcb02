"""Two hundred controllers that commit a thousand times a second: how long each takes, lost ones.

Rows in PostgreSQL, on this machine, flushed at every commit; and the same on SQLite. The
controllers are threads of a few processes, each with its own connections, run and lease; what they
commit is what a controller commits most, its run's step and an event. This process follows the
events meanwhile. All of that shares the machine's cores, so PostgreSQL is also asked for less.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from tests.postgres import Server

from benchmarks.frame.bench import Bench

_SUBJECT = Path(__file__).parent / "subjects" / "meta_controllers.py"
_PROCESSES, _THREADS = 8, 25
_RATES = {"PostgreSQL": 5.0, "PostgreSQL, half": 2.5, "SQLite": 5.0}  # a second, of each
_SECONDS = {True: 8.0, False: 30.0}


def measure(bench: Bench) -> None:
    server = Server(fsync="on", max_connections="400")
    try:

        def postgres() -> None:
            _one(bench, "PostgreSQL", server.fresh())

        def half() -> None:
            _one(bench, "PostgreSQL, half", server.fresh())

        def sqlite() -> None:
            _one(bench, "SQLite", f"sqlite:///{bench.folder('rows') / 'meta.db'}")

        bench.alternate(bench.rounds(quick=1, full=3), postgres, half, sqlite)
    finally:
        server.close()
    rate = bench.median("PostgreSQL", "commits a second")
    bench.at_least("commits a second on PostgreSQL", 950, rate, "1/s")
    bench.at_most("99 % of them within", 50, bench.median("PostgreSQL", "p99"), "ms")
    bench.exactly("lost or seen twice, PostgreSQL", 0, bench.median("PostgreSQL", "lost"))
    bench.exactly("lost or seen twice, SQLite", 0, bench.median("SQLite", "lost"))


def _one(bench: Bench, name: str, url: str) -> None:
    from penstock.meta import open_meta

    store = open_meta(url)
    seen, over = [0], threading.Event()
    follower = threading.Thread(target=_follow, args=(store, seen, over))
    follower.start()
    command = [sys.executable, str(_SUBJECT), url]
    rest = [str(_THREADS), str(_RATES[name]), str(_SECONDS[bench.quick])]
    folder = bench.folder("said")
    running = [
        bench.start([*command, str(n * _THREADS), *rest], log=folder / f"{n}")
        for n in range(_PROCESSES)
    ]
    for each in running:
        each.wait()
    found = [json.loads((folder / f"{n}").read_text()) for n in range(_PROCESSES)]
    over.set()
    follower.join()
    store.close()
    took = sorted(1000 * each for one in found for each in one["seconds"])
    bench.add(name, "commits a second", "1/s", len(took) / _SECONDS[bench.quick])
    bench.add(name, "median", "ms", statistics.median(took))
    bench.add(name, "p99", "ms", took[int(0.99 * (len(took) - 1))])
    bench.add(name, "lost", "", float(len(took) - seen[0]))


def _follow(store: object, seen: list[int], over: threading.Event) -> None:
    """Count what comes; a cursor never goes back."""
    cursor = 0
    wait: Callable[..., list] = store.wait_events  # type: ignore[attr-defined]
    while True:
        last = over.is_set()
        for event in wait(cursor, subject="run/*", timeout=0.5, limit=10_000):
            assert event.seq > cursor
            cursor = event.seq
            seen[0] += event.kind == "run.stepped"
            last = False
        if last:
            return
