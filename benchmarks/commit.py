"""A version of 100,000 shards: commit, list and open; and 100,000 units committed in batches.

Batches are of 500 units. Ours alone: no peer keeps a database row per version and unit. Both are
measured at a tenth of the size as well, in processes of their own, so that growth and memory can
be seen: linear is 10 times the time for 10 times the size. Memory is the process's peak above what
it had when everything was imported. The limit for the units is SQLite updating and inserting as
many rows in as many transactions, with nothing around it.

Prediction, before any tuning: commit 1.5 s (0.7 s of it references), open 0.1 s, list 5 ms, 25 s
for the units (0.2 ms each: an UPDATE by key, and the reference), below 300 MB.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.frame.bench import Bench

_SUBJECT = Path(__file__).parent / "subjects" / "commit_many.py"
_TIMEOUT = 300.0
_FULL, _TENTH = 100_000, 10_000
_UNITS = {"commit": "s", "list": "s", "open": "s", "units": "s", "memory": "MB"}
_TOTAL = "commit, list, open"


def measure(bench: Bench) -> None:
    sizes = (_TENTH // 10, _TENTH) if bench.quick else (_TENTH, _FULL)

    def run(kind: str, size: int) -> None:
        subject = _subject(kind, size)
        log = bench.folder("log") / "log"
        ended = bench.start(
            [sys.executable, _SUBJECT, bench.folder("home"), kind, str(size)], log=log
        ).wait(timeout=_TIMEOUT)
        lines = log.read_text(errors="replace").splitlines()
        if ended or not lines:
            bench.note(f"{subject} failed: {' / '.join(lines[-3:])}")
            return
        found = json.loads(lines[-1])
        for metric, value in found.items():
            bench.add(subject, metric, _UNITS[metric], value)
        if kind == "shards":
            bench.add(subject, _TOTAL, "s", sum(found[each] for each in ("commit", "list", "open")))

    calls = [lambda k=k, s=s: run(k, s) for k in ("shards", "units", "limit") for s in sizes]
    bench.alternate(bench.rounds(quick=1, full=3), *calls)
    small, large = sizes
    for kind, metric, most in (("shards", _TOTAL, 5.0), ("units", "units", 60.0)):
        grown = bench.ratio(
            f"{kind}: {large} / {small}",
            metric,
            over=_subject(kind, large),
            under=_subject(kind, small),
        )
        bench.at_most(f"{kind}, ten times as many", 15, grown, "times the time")
        bench.at_most(f"{large} {kind}", most, bench.median(_subject(kind, large), metric), "s")
        memory = bench.median(_subject(kind, large), "memory")
        bench.at_most(f"{large} {kind}, memory", 300, memory, "MB")


def _subject(kind: str, size: int) -> str:
    return f"{kind}, {size}"
