"""An epoch of steps of 20 ms from a far object store: what the node's cache makes of it.

The store is a server on this machine that waits 50 ms before every answer and a second before one
in a hundred; Penstock reads it with its S3 engine, which hedges. Rows are int32[1025], 1024 a shard
of 4.2 MB, batches of 64 rows a process, shuffled in windows of a fourth of the shards: 6 s of steps
for one process, 1.4 s for four. Cold: an empty cache. Small cache: it holds 60 % of the data, so
that it must evict behind. Warm: filled by an epoch before. Four processes: ranks of one run on one
node, an empty cache for all. Bytes are counted by the server.

Until an empty cache holds the first window, which begins the epoch wherever it is cut, and the next
one, batches wait for the network whatever anybody does: the waits in one window's steps are listed
as "filling", the share is that of all steps behind them. The limit is a wait of nothing. The window
that the epoch's beginning cuts is read twice, at the beginning and at the end: a small cache
fetches its shards, and those at the windows' edges, twice: at most 1.3 of the data.

Prediction, before any tuning: 0.5 s to the first batch, then below 1 % of waiting everywhere: 13
MB/s of need by a process, 4 shards on their way at once of 0.1 to 0.3 s each. What the first
measurement taught: with windows of 0.3 s, one slow answer is a stall; a window must last longer.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks import _subjects as subjects
from benchmarks.frame.bench import Bench

_SUBJECTS = Path(__file__).parent / "subjects"
_TIMEOUT = 300.0
_ROWS = 1024  # of a shard
_SHARD = _ROWS * 4100  # bytes
_ALL = 1 << 40
_WAIT = "wait, share of the step"


def measure(bench: Bench) -> None:
    shards = 24 if bench.quick else 72
    store = bench.folder("store")
    digest = _lines(bench, ["shards.py", f"file://{store}/blobs", shards], "the data")[-1]
    total = sum(f.stat().st_size for f in (store / "blobs").rglob("*") if f.stat().st_size > _SHARD)
    port = _serve(bench, store)

    def sent() -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/counted") as answer:
            found: dict[str, int] = json.load(answer)
        return sum(found.values())

    def epoch(subject: str, home: Path, ranks: int, limit: int) -> None:
        before = sent()
        told = {
            "home": str(home),
            "url": f"s3://bucket?endpoint=http://127.0.0.1:{port}&anonymous=true&region=us-east-1",
            "digest": digest,
            "world": ranks,
            "window": shards // 4 * _ROWS,
            "limit": limit,
        }
        found = _ranks(bench, subject, told, ranks)
        if not found:
            return
        bench.add(subject, "first batch", "s", max(each["first"] for each in found))
        bench.add(subject, "filling", "s", max(each["filling"] for each in found))
        bench.add(subject, _WAIT, "%", max(each["share"] for each in found))
        bench.add(subject, "longest wait", "ms", max(each["longest"] for each in found))
        bench.add(subject, "bytes fetched / data", "", (sent() - before) / total)
        bench.add(subject, "bytes evicted / data", "", sum(e["evicted"] for e in found) / total)

    def cold_and_warm() -> None:
        epoch("cold, small cache", bench.folder("home"), 1, total * 6 // 10)
        home = bench.folder("home")
        epoch("cold", home, 1, _ALL)
        epoch("warm", home, 1, _ALL)

    bench.alternate(
        bench.rounds(quick=1, full=3),
        cold_and_warm,
        lambda: epoch("4 processes", bench.folder("home"), 4, _ALL),
    )
    for subject in ("cold, small cache", "cold", "warm", "4 processes"):
        bench.at_most(f"{subject}: waiting", 5, bench.median(subject, _WAIT), "% of the step")
    for subject, most in (("cold, small cache", 1.3), ("cold", 1.02), ("4 processes", 1.02)):
        fetched = bench.median(subject, "bytes fetched / data")
        bench.at_most(f"{subject}: bytes fetched", most, fetched, "of the data")
    fetched = bench.median("warm", "bytes fetched / data")
    bench.at_most("warm: bytes fetched", 0.01, fetched, "of the data")
    bench.note("bytes fetched hold the manifest, read by each process, and hedged reads")


def _serve(bench: Bench, store: Path) -> int:
    log = bench.folder("log") / "log"
    server = bench.start(
        [sys.executable, _SUBJECTS / "range_server.py", store, str(bench.seed)], log=log
    )
    subjects.wait_for(lambda: log.read_text().strip(), server, 30.0)
    return int(log.read_text())


def _ranks(bench: Bench, subject: str, told: dict[str, Any], ranks: int) -> list[dict[str, float]]:
    logs = [bench.folder("log") / "log" for _ in range(ranks)]
    processes = [
        bench.start(
            [sys.executable, _SUBJECTS / "cache_epoch.py", json.dumps({**told, "rank": rank})],
            log=log,
        )
        for rank, log in enumerate(logs)
    ]
    for process, log in zip(processes, logs, strict=True):
        if process.wait(timeout=_TIMEOUT):
            bench.note(f"{subject} failed: {log.read_text(errors='replace')[-300:]}")
            return []
    return [json.loads(log.read_text().splitlines()[-1]) for log in logs]


def _lines(bench: Bench, command: list[Any], what: str) -> list[str]:
    log = bench.folder("log") / "log"
    script, *rest = command
    done = bench.start([sys.executable, _SUBJECTS / script, *map(str, rest)], log=log)
    if done.wait(timeout=_TIMEOUT):
        raise RuntimeError(f"{what} could not be made: {log.read_text()[-500:]}")
    return log.read_text().splitlines()
