"""Random-order loading beside torch, Streaming, LitData, WebDataset, Grain and Lance.

Three kinds of rows, at least 500 MB each: tokens int32[1025] in batches of 64, blobs of 100,000
bytes in batches of 32, features of 256 bytes (float32[62] and a label) in batches of 256. Each
subject keeps the rows in its own form and gives batches as it gives them: tensors or arrays,
blobs as bytes where it knows bytes. Everything is in the page cache on all sides. Penstock and the
DataLoaders are measured with 0 and 2 workers; of a peer the better one counts. The orders are not
alike: Penstock, torch, Grain and Lance permute the whole, Streaming and LitData shuffle in blocks
of shards, WebDataset in a buffer of 1,000. The limit is `numpy.take` of the same rows from memory
maps, by row numbers made beforehand, in one thread: what has two may be faster.

Prediction, before any tuning: tokens 600,000 samples/s, blobs 40,000, features 5,000,000; the
DataLoaders 60,000, 10,000 and 100,000, bounded by what a sample costs in Python; the limit 900,000,
60,000 and 10,000,000.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.frame.bench import Bench

PEERS = {
    "torch": ["torch", "numpy"],
    "streaming": ["torch", "numpy", "mosaicml-streaming"],
    "litdata": ["torch", "numpy", "litdata"],
    "webdataset": ["torch", "numpy", "webdataset"],
    "grain": ["grain", "numpy"],
    "lance": ["pylance", "numpy", "pyarrow"],
}
KINDS = {"tokens": 4100, "blobs": 100_000, "features": 256}  # bytes of a row
FULL, QUICK = 512_000_000, 16_000_000  # bytes of each kind
_SUBJECTS = Path(__file__).parent / "subjects"
_TIMEOUT = 900.0
_METRIC = "samples"
_SHARDS = ("streaming", "litdata", "webdataset", "lance")  # formats of shards
_IN_QUICK = ("torch",)


def measure(bench: Bench) -> None:
    seconds = 0.5 if bench.quick else 3.0
    size = QUICK if bench.quick else FULL
    pythons = _pythons(bench)
    folders: dict[tuple[str, str], Path] = {}

    def run(subject: str, python: Any, script: str, kind: str, workers: int) -> None:
        keeps = "memmaps" if script in ("limit", "torch", "grain") else script
        if (keeps, kind) not in folders:
            folders[keeps, kind] = bench.folder(f"{keeps}-{kind}")
        told = {"kind": kind, "rows": size // KINDS[kind], "workers": workers}
        told |= {"seconds": seconds, "warm": seconds / 3, "seed": bench.seed}
        log = bench.folder("log") / "log"
        command = [python, _SUBJECTS / f"loader_{script}.py", folders[keeps, kind]]
        ended = bench.start([*command, json.dumps(told)], log=log).wait(timeout=_TIMEOUT)
        lines = log.read_text(errors="replace").splitlines()
        found = next((each for each in reversed(lines) if each.startswith('{"samples"')), None)
        if ended or found is None:
            bench.note(f"{subject}, {kind}, failed: {' / '.join(lines[-2:])[-300:]}")
            return
        rate = json.loads(found)["samples"] / json.loads(found)["seconds"]
        bench.add(subject, kind, "samples/s", rate)
        bench.add(subject, f"{kind}, bytes", "MB/s", rate * KINDS[kind] / 1e6)

    calls = [lambda each=each: run(*each) for each in _all(pythons)]
    bench.alternate(bench.rounds(quick=1, full=3), *calls)
    for kind in KINDS:
        _judge(bench, kind)


def _all(pythons: dict[str, Any]) -> Iterator[tuple[str, Any, str, str, int]]:
    for kind in KINDS:
        yield "limit: numpy.take", sys.executable, "limit", kind, 0
        for workers in (0, 2):
            yield f"Penstock, {workers} workers", sys.executable, "penstock", kind, workers
            for peer, python in pythons.items():
                if peer != "lance" or not workers:
                    yield f"{peer}, {workers} workers", python, peer, kind, workers


def _pythons(bench: Bench) -> dict[str, Any]:
    """The peers that can be installed here; the others are noted."""
    found = {}
    for peer in PEERS:
        if bench.quick and peer not in _IN_QUICK:
            continue
        try:
            found[peer] = bench.python(peer)
        except RuntimeError as error:
            bench.note(f"{peer} is left out: {error}")
    if bench.quick:
        bench.note(f"the quick run leaves out {', '.join(p for p in PEERS if p not in found)}")
    return found


def _judge(bench: Bench, kind: str) -> None:
    def best(names: tuple[str, ...]) -> str | None:
        measured = [s for s, m, _ in bench.samples if m == kind and s.split(",")[0] in names]
        return max(measured, key=lambda subject: bench.median(subject, kind), default=None)

    ours = best(("Penstock",))
    peer = best(_SHARDS if kind == "tokens" else tuple(PEERS))
    if ours is None or peer is None:
        return
    times = bench.ratio(f"{kind}: {ours} / {peer}", kind, over=ours, under=peer)
    share = bench.ratio(f"{kind}: {ours} / limit", kind, over=ours, under="limit: numpy.take")
    if kind == "blobs":
        reached = max(times / 2, share / 0.7)
        bench.at_least("blobs: 2 times the best peer, or 70 % of the limit", 1, reached)
    else:
        who = "the best shard format" if kind == "tokens" else "the best peer"
        bench.at_least(f"{kind}: faster than {who}", 10, times, "times")
        bench.at_least(f"{kind}: of the limit", 0.7 if kind == "tokens" else 0.5, share)
