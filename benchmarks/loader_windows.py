"""Windows of 16 steps over episodes of several streams: samples a second, beside LeRobot and HDF5.

A sample: 16 states and 16 actions of 14 numbers at 50 Hz, 16 forces of 6 at 100 Hz, 2 pictures of
32 x 32 x 3 bytes at 10 Hz (8.3 KB together), padded at the episodes' ends; batches of 64 in random
order, as torch tensors. Everything is in the page cache on all sides. Penstock reads in the
process of the loop; the peers are measured with 0 and 2 workers, and the better one counts.
LeRobot keeps one rate, so its forces and pictures are kept at 50 Hz; the HDF5 dataset finds rows by
arithmetic, as even clocks allow, where Penstock searches timestamps. The limit is `numpy.take` of
the same rows from memory maps, with row numbers made beforehand.

Prediction, before any tuning: HDF5 3,000 samples/s with 0 workers and 5,000 with 2 (four slices of
some 60 us each, and collation), LeRobot 500, Penstock 50,000, the limit 100,000.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.frame import environments
from benchmarks.frame.bench import Bench

PEERS = {"hdf5": ["torch", "numpy", "h5py"]}
_LEROBOT = ["lerobot==0.3.2", "torch==2.13.0"]  # another Arrow and fsspec than our pins
_SUBJECTS = Path(__file__).parent / "subjects"
_TIMEOUT = 300.0
_METRIC = "samples"


def measure(bench: Bench) -> None:
    size = {"episodes": 8, "rows": 250} if bench.quick else {"episodes": 40, "rows": 500}
    seconds = 1.0 if bench.quick else 4.0
    hdf5 = bench.python("hdf5")
    subjects: list[tuple[str, Any, str, int]] = [
        ("Penstock", sys.executable, "windows_penstock.py", 0),
        ("limit: numpy.take", sys.executable, "windows_limit.py", 0),
        ("HDF5, 0 workers", hdf5, "windows_hdf5.py", 0),
        ("HDF5, 2 workers", hdf5, "windows_hdf5.py", 2),
    ]
    if (lerobot := _lerobot(bench)) is not None:
        for workers in (0, 2):
            name = f"LeRobot, {workers} workers"
            subjects.append((name, lerobot, "windows_lerobot.py", workers))
    folders: dict[str, Path] = {}

    def run(subject: str, python: Any, script: str, workers: int) -> None:
        folder = folders.setdefault(script, bench.folder(script.removesuffix(".py")))
        told = {**size, "workers": workers, "seconds": seconds, "seed": bench.seed}
        log = bench.folder("log") / "log"
        ended = bench.start(
            [python, _SUBJECTS / script, folder, json.dumps(told)],
            env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"},
            log=log,
        ).wait(timeout=_TIMEOUT)
        lines = log.read_text(errors="replace").splitlines()
        if ended or not lines:
            bench.note(f"{subject} failed: {' / '.join(lines[-3:])}")
            return
        found = json.loads(lines[-1])
        bench.add(subject, _METRIC, "samples/s", found["samples"] / found["seconds"])
        bench.add(subject, "bytes", "MB/s", found["bytes"] / found["seconds"] / 1e6)

    calls = [lambda each=each: run(*each) for each in subjects]
    bench.alternate(bench.rounds(quick=1, full=5), *calls)
    _judge(bench)


def _lerobot(bench: Bench) -> Path | None:
    """LeRobot's interpreter; None, and a note, where it does not install. Not made when quick."""
    if bench.quick:
        bench.note("LeRobot is left out of the quick run")
        return None
    try:
        return environments.make("lerobot", _LEROBOT, bench.say, pins=None)
    except RuntimeError as error:
        bench.note(f"LeRobot is left out: {error}")
        return None


def _judge(bench: Bench) -> None:
    ours = "Penstock"
    for peer in ("HDF5", "LeRobot"):
        measured = [s for s, m, _ in bench.samples if s.startswith(peer) and m == _METRIC]
        if not measured:
            continue
        best = max(measured, key=lambda subject: bench.median(subject, _METRIC))
        times = bench.ratio(f"{ours} / {best}", _METRIC, over=ours, under=best)
        bench.at_least(f"faster than {peer}", 10, times, "times")
    limit = bench.ratio("Penstock / limit", _METRIC, over=ours, under="limit: numpy.take")
    bench.note(f"Penstock reaches {limit:.0%} of numpy.take from memory maps")
