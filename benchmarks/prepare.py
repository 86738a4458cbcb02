"""20,000 pictures decoded, resized and written with 2 workers, beside bare processes and Ray Data.

JPEGs of 320 x 240 in folders of 1,000 become uint8 [96, 96, 3] with their key. Penstock: `prepare`
with a map step; the version is committed, checked and measured when it returns. Bare: two forked
processes that share out the list of files and write Arrow files of 64 MiB, flushed. Ray Data:
`read_binary_files().map().write_parquet()` on two CPUs, its start not counted. Then Penstock again:
SIGKILL of script and workers when 90 % of the units are done, and the same call once more.

Prediction, before any tuning: a picture costs 1.5 ms to decode and resize, so bare processes take
15 s; Penstock adds 0.1 ms a picture for rows and keys, a second to start its agent, and a second to
lay out 550 MB of shards: 80 % of the bare ones. Ray Data 25 s. After the kill one unit per worker,
2 of 100, runs again.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.frame.bench import Bench

PEERS = {"ray": ["ray[data]", "pillow", "numpy", "pyarrow", "pandas"]}
_SUBJECTS = Path(__file__).parent / "subjects"
_WORKERS = 2
_TIMEOUT = 600.0
_METRIC = "pictures"


def measure(bench: Bench) -> None:
    count = 2_000 if bench.quick else 20_000
    folder = _pictures(bench, count)
    ray = bench.python("ray")

    def run(subject: str, python: Any, script: str) -> None:
        out = bench.folder(script.removesuffix(".py"))
        log = bench.folder("log") / "log"
        ended = bench.start([python, _SUBJECTS / script, folder, out, str(_WORKERS)], log=log,
                            cwd=bench.folder("cwd")).wait(timeout=_TIMEOUT)  # fmt: skip
        lines = log.read_text(errors="replace").splitlines()
        if ended or not lines:
            bench.note(f"{subject} failed: {' / '.join(lines[-3:])}")
            return
        found = json.loads(lines[-1])
        if found["rows"] != count:
            bench.note(f"{subject} wrote {found['rows']} of {count} rows")
            return
        bench.add(subject, _METRIC, "1/s", count / found["seconds"])
        for stage, seconds in found.get("stages", {}).items():
            bench.add(subject, stage, "s", seconds)

    bench.alternate(
        bench.rounds(quick=1, full=5),
        lambda: run("Penstock", sys.executable, "prepare_penstock.py"),
        lambda: run("two bare processes", sys.executable, "prepare_bare.py"),
        lambda: run("Ray Data", ray, "prepare_ray.py"),
    )
    repeated, wanted = _killed(bench, folder)
    bare = bench.ratio("Penstock / bare", _METRIC, over="Penstock", under="two bare processes")
    peer = bench.ratio("Penstock / Ray Data", _METRIC, over="Penstock", under="Ray Data")
    bench.at_least("of the bare processes' pictures a second", 0.9, bare)
    bench.at_least("faster than Ray Data", 1.3, peer, "times")
    bench.at_most("pictures done again after SIGKILL, beside units in flight", 0, repeated)
    bench.exactly("units that ran after SIGKILL are those not committed", 0, wanted)


def _pictures(bench: Bench, count: int) -> Path:
    folder = bench.folder("pictures")
    share = count // _WORKERS
    makers = [
        bench.start([sys.executable, _SUBJECTS / "pictures.py", folder, str(n * share),
                     str((n + 1) * share)])
        for n in range(_WORKERS)
    ]  # fmt: skip
    if any(each.wait(timeout=_TIMEOUT) for each in makers):
        raise RuntimeError("the pictures could not be written")
    return folder


def _killed(bench: Bench, folder: Path) -> tuple[float, float]:
    """(pictures done again that were not in a unit in flight, units that ran without need)."""
    home, seen = bench.folder("home"), bench.folder("seen") / "keys"
    command = [sys.executable, _SUBJECTS / "prepare_penstock.py", folder, home, str(_WORKERS),
               str(seen)]  # fmt: skip
    log = bench.folder("log") / "log"
    first = bench.start(command, log=log)
    while (done := _done(log))[0] < 0.9 * done[1]:
        if first.poll() is not None:
            raise RuntimeError(log.read_text(errors="replace")[-500:])
        time.sleep(0.001)
    victims = psutil.Process(first.pid).children(recursive=True)
    for each in [psutil.Process(first.pid), *victims]:
        each.kill()
    first.wait()
    bench.children.clear()
    before = seen.read_text().split()
    committed, units = _units(home)
    again = bench.folder("log") / "log"
    if bench.start(command, log=again).wait(timeout=_TIMEOUT):
        raise RuntimeError(again.read_text(errors="replace")[-500:])
    found = json.loads(again.read_text().splitlines()[-1])
    after = seen.read_text().split()[len(before) :]
    allowed = {key for keys, done in units for key in keys if not done}
    repeated = set(before) & set(after) - allowed
    bench.add("Penstock, killed at 90 %", "units", "", len(units))
    bench.add("Penstock, killed at 90 %", "units that ran after it", "", found["ran"])
    bench.add("Penstock, killed at 90 %", "pictures done again", "", len(set(before) & set(after)))
    return len(repeated), found["ran"] - (len(units) - committed)


def _done(log: Path) -> tuple[int, int]:
    lines = log.read_text().splitlines() if log.exists() else []
    told = [json.loads(line) for line in lines if line.startswith('{"done"') and line[-1] == "}"]
    return (told[-1]["done"], told[-1]["total"]) if told else (0, 1)


def _units(home: Path) -> tuple[int, list[tuple[list[str], bool]]]:
    """How many are committed, and the keys of every unit with whether it is."""
    from penstock.base.settings import load_settings
    from penstock.jobs.stores import open_stores

    settings = load_settings(folder=home, home=home, environment={})
    with open_stores(settings) as stores, stores.meta.read() as meta:
        run = meta.newest_run("pictures", "prepare")
        assert run is not None
        units = meta.units(run.id)
    found = [
        ([each["name"] for each in unit.payload["inputs"]], unit.state == "done") for unit in units
    ]
    return sum(done for _, done in found), found
