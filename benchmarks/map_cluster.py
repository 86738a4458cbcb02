"""Ten thousand small units on three nodes of a Ray cluster, one of which loses its power.

The same function by Penstock's map and by Ray Data, which joins the same cluster by a driver of its
own; the nodes are processes of this machine, of one CPU each, and new for each. A node is cut off
when a third of the units was executed. Seconds are from the call to all results; how often a unit
was executed in vain is counted by the units themselves, and all results are compared.

Prediction: units of 2 ms on two cores take 10 s in any case. Penstock hands out half a second of
them at a time, so some hundred are repeated, and goes on at once with two nodes: 14 s. Ray Data
makes blocks of them, waits for Ray to notice the loss, and makes lost blocks anew: 25 s.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

from tests.ray_nodes import Cluster

from benchmarks.frame.bench import Bench
from benchmarks.subjects.map_units import work

_SUBJECT = Path(__file__).parent / "subjects" / "map_units.py"
_UNITS = {True: 2_000, False: 10_000}
_NODES = 3
_TIMEOUT = 300.0


def measure(bench: Bench) -> None:
    count = _UNITS[bench.quick]
    spare = bench.folder("expected")
    expected = hashlib.sha256(
        "".join(work(n, str(spare)) for n in range(count)).encode()
    ).hexdigest()
    cluster = Cluster()
    try:

        def penstock() -> None:
            _one(bench, cluster, "Penstock", "penstock", count, expected)

        def ray_data() -> None:
            _one(bench, cluster, "Ray Data", "ray-data", count, expected)

        bench.alternate(bench.rounds(quick=1, full=3), penstock, ray_data)
    finally:
        cluster.close()
    ratio = bench.ratio("Ray Data / Penstock", "all results", over="Ray Data", under="Penstock")
    bench.at_least("Ray Data's time over Penstock's", 1.0, ratio)
    bench.exactly("results that differ, Penstock", 0, bench.median("Penstock", "differs"))


def _one(
    bench: Bench, cluster: Cluster, subject: str, which: str, count: int, expected: str
) -> None:
    nodes = [cluster.add() for _ in range(_NODES)]
    folder = bench.folder(which)
    executed = folder / "executed"
    command = [sys.executable, str(_SUBJECT), which, cluster.address, str(count), str(folder)]
    env = {**os.environ, **cluster.environment}
    log = folder / "said"
    running = bench.start(command, env=env, log=log)
    deadline = time.monotonic() + _TIMEOUT
    while running.poll() is None and _size(executed) < count / 3:
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        time.sleep(0.01)
    nodes[0].cut()
    running.wait(timeout=_TIMEOUT)
    said = json.loads(log.read_text().splitlines()[-1])
    cluster.clear()
    bench.add(subject, "all results", "s", said["seconds"])
    bench.add(subject, "executed in vain", "units", float(_size(executed) - count))
    bench.add(subject, "differs", "", float(said["results"] != expected))


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
