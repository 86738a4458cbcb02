"""A gigabyte from a DataFrame into a dataset version and back, beside Spark's own Parquet.

One session, local with two threads; all take turns in it. Two kinds of rows: `events` (a number, a
time, two values, a text of 64 characters: 130 bytes) and `vectors` (an id, 256 float32: 1 KiB).
The source is Parquet on this disk. Writing is `ps.spark.write(df, …, key="id")` into blobs on this
disk, beside `df.write.parquet`, and that of `df.sort("id")`: a version's rows are in order of their
key, split, hashed and counted, those of Parquet are as they come. A Python data source that drops
all rows shows what Spark takes to hand them to Python. Reading is all columns of all rows into
Spark's `noop` sink. Then one column of a tenth of the rows, chosen by the key. SPARK_ROUNDTRIP_MB
sets the size of each kind.

Prediction, before any measurement: writing falls short of 1.3 for `events` (3 times as long as
Parquet: each key and each value that is text is hashed in Python, and rows are written twice) and
for `vectors` (1.5 times); reading holds for both; a tenth by the key takes no longer than Parquet.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from benchmarks.frame.bench import Bench

_SUBJECT = Path(__file__).parent / "subjects" / "spark_both.py"
_KINDS = ("events", "vectors")
_TIMEOUT = 3600.0  # seconds
_LONGER = 1.3  # than Parquet
_OURS, _PARQUET, _SORTED = "Penstock", "Spark's Parquet", "Spark's Parquet, sorted"
_DROPPED = "a Python data source that drops the rows"


def measure(bench: Bench) -> None:
    size = int(os.environ.get("SPARK_ROUNDTRIP_MB", "50" if bench.quick else "1000"))
    rounds = bench.rounds(quick=1, full=3)
    log = bench.folder("log") / "log"
    command = [sys.executable, _SUBJECT, bench.folder("work"), size, rounds, *_KINDS]
    env = {key: os.environ[key] for key in ("PYTHONPATH", "JAVA_HOME") if key in os.environ}
    running = bench.start([str(each) for each in command], env=env, log=log)
    code = running.wait(timeout=_TIMEOUT)
    said = log.read_text()
    assert code == 0, said[-3000:]
    for line in said.splitlines():
        if line.startswith("SAMPLE"):
            subject, metric, seconds = json.loads(line.removeprefix("SAMPLE"))
            bench.add(subject, metric, "s", seconds)
    bench.note(f"{size} MB of each kind, local[2]")
    for kind in _KINDS:
        for metric in (f"{kind}: write", f"{kind}: read", f"{kind}: a tenth of one column"):
            ratio = bench.ratio(f"{metric}, Penstock / Parquet", metric, over=_OURS, under=_PARQUET)
            bench.at_most(f"{metric}, of Parquet's time", _LONGER, ratio, "times")
        write = f"{kind}: write"
        bench.ratio(f"{write}, Penstock / sorted Parquet", write, over=_OURS, under=_SORTED)
        bench.ratio(
            f"{write}, rows dropped by Python / Parquet", write, over=_DROPPED, under=_PARQUET
        )
