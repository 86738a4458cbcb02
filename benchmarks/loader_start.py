"""Open to first batch: a manifest of 10,000 shards and a billion rows, shuffled in windows.

Rows are float32[8] and int64; the shards are 16 blobs of 4 MB, again and again, so that a billion
rows take 65 MB of disk; the manifest is real. A new process, imports excluded, opens the store by
its URL, reads the manifest, makes the loader (256 rows, `shuffle="window"`: windows of 64 blocks of
64 MiB, here some 1,300 shards) and takes a batch, which comes from some 200 of them. The blobs were
read once before, so they are in the page cache and known to be whole: what is measured is our work.
Memory is what the process has for itself (RssAnon) beyond imports; mapped pages are the page
cache's. The limit is reading and hashing the shard table's bytes, and nothing else. No peer: none
has a format in which such a version could be made without writing 40 GB.

Prediction, before any tuning: manifest 10 ms, first batch 90 ms (0.35 ms to open each of 230
shards), 20 MB. What came of it: the hint of the next window took half a second by itself,
and now looks at 16,384 rows of it; 200 shards are opened in 15 ms, those of equal heads unparsed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

from benchmarks.frame.bench import Bench

_SUBJECTS = Path(__file__).parent / "subjects"
_TIMEOUT = 120.0
_TOTAL = "open to first batch"
_METRICS = {
    "total": (_TOTAL, "ms"),
    "processor": ("processor time of it", "ms"),
    "manifest": ("manifest", "ms"),
    "loader": ("loader", "ms"),
    "batch": ("first batch", "ms"),
    "memory": ("memory", "MB"),
}


def measure(bench: Bench) -> None:
    folder = bench.folder("store")
    digest = _run(bench, "start_data.py", folder, 10_000, 100_000)
    manifest = _blob(folder, digest)
    table = _blob(folder, json.loads(manifest.read_bytes())["tables"]["shards"])

    def penstock() -> None:
        found = json.loads(_run(bench, "start_read.py", folder, digest))
        for key, (metric, unit) in _METRICS.items():
            bench.add("Penstock", metric, unit, found[key])

    def limit() -> None:
        began = time.perf_counter()
        hashlib.sha256(table.read_bytes()).digest()
        bench.add(
            "limit: read and hash the table", _TOTAL, "ms", 1e3 * (time.perf_counter() - began)
        )

    _run(bench, "start_read.py", folder, digest)  # so that the blobs are known to be whole
    bench.alternate(bench.rounds(quick=3, full=10), penstock, limit)
    bench.at_most(_TOTAL, 100, bench.median("Penstock", _TOTAL), "ms")
    bench.at_most("memory", 100, bench.median("Penstock", "memory"), "MB")


def _blob(folder: Path, digest: str) -> Path:
    """Where a blob lies, as docs/formats.md says."""
    return folder / "blobs" / digest[7:9] / digest[9:]


def _run(bench: Bench, script: str, *arguments: object) -> str:
    log = bench.folder("log") / "log"
    command: list[str | Path] = [sys.executable, _SUBJECTS / script, *map(str, arguments)]
    if bench.start(command, log=log).wait(timeout=_TIMEOUT):
        raise RuntimeError(f"{script} failed: {log.read_text(errors='replace')[-500:]}")
    return log.read_text().splitlines()[-1]
