"""A rank that hangs: how long until it is found, whether the right one is named, and false alarms.

Two ranks, steps of 50 ms, `hang_seconds=2`. In step 30 rank 1 is stopped by SIGSTOP, loops without
end, waits for ever in its dataset, or for a lock that nobody gives back; five times each. Measured
is from that moment to the event `rank.hung`; it must name rank 1 and the line in which it hangs. A
process that is stopped can write no stack: there the right answer is that it is stopped.

False alarms: a real training with log-normal steps (sigma 0.7), evaluations that last longer than
`hang_seconds` and checkpoints, for some minutes; and hours of such before the agent's own watch
with a made-up clock (`subjects/hang_hours.py`). No peer: the others wait for a time-out of their
collective operations, ten to thirty minutes by default, and name no line.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import _subjects as subjects
from benchmarks.frame.bench import Bench

_KINDS = ("frozen", "loop", "loader", "lock")
_FLOOR = 2.0  # hang_seconds
_START, _PATIENCE = 60.0, 60.0  # seconds for step 30; for a verdict
_REAL = {True: 20.0, False: 180.0}  # seconds of uneven steps
_HOURS = {True: 4, False: 24}  # simulated
_ENV = {"PENSTOCK_HANG_SECONDS": str(_FLOOR)}
_METRIC = "hang to verdict"


def measure(bench: Bench) -> None:
    rounds = bench.rounds(quick=1, full=5)
    right: list[bool] = []

    def one(kind: str) -> None:
        found = _hang(bench, kind)
        right.append(found)
        bench.children.clear()

    bench.alternate(rounds, *(lambda kind=kind: one(kind) for kind in _KINDS))
    alarms, steps = _uneven(bench)
    hours = _simulated(bench)
    took = [max(bench.samples.get((kind, _METRIC, "s"), [math.nan])) for kind in _KINDS]
    bench.at_most("the latest of all verdicts", 5.0, max(took), "s")
    bench.exactly("right rank and line, or that it is stopped", len(_KINDS) * rounds, sum(right))
    bench.exactly("false alarms, really", 0, alarms)
    bench.at_least("steps that were really done meanwhile", 50 if bench.quick else 500, steps)
    bench.exactly("false alarms, simulated", 0, hours["alarms"])
    bench.exactly("stopped ranks that were found, simulated", hours["hours"], hours["found"])


def _start(bench: Bench, kind: str, steps: int) -> tuple[Any, Path, Path]:
    folder, home = bench.folder("result"), bench.folder("home")
    script = subjects.SCRIPTS / "hang_training.py"
    env = {**_ENV, "PENSTOCK_HOME": str(home)}
    command: list[str | Path] = [sys.executable, script, folder, kind, str(steps)]
    return bench.start(command, env=env, log=folder / "log"), folder, home


def _hang(bench: Bench, kind: str) -> bool:
    """One hang. returns  whether it was found, and named rightly"""
    run, folder, home = _start(bench, kind, 200)
    try:
        subjects.wait_for(lambda: (folder / "hung").exists(), run, _START)
        at, pid, line = (folder / "hung").read_text().split()
        began = float(at)
        if kind == "frozen":
            os.kill(int(pid), signal.SIGSTOP)
            began = time.time()
        found = subjects.wait_for(lambda: _events(home, "rank.hung"), run, _PATIENCE)[0]
    except subjects.TimedOut as error:
        bench.note(f"{kind}: not found: {error}")
        bench.say((folder / "log").read_text(errors="replace")[-800:])
        return False
    bench.add(kind, _METRIC, "s", found.at - began)
    told = found.body
    if kind == "frozen":
        right = told["state"] == "stopped by SIGSTOP" and told["where"] is None
    else:
        right = str(told["where"]).startswith(f"{line} in ")
    if not right or told["rank"] != 1:
        bench.note(f"{kind}: named rank {told['rank']}, {told['where']}; it was rank 1, {line}")
    return bool(right and told["rank"] == 1)


def _events(home: Path, *kinds: str) -> list[Any]:
    import penstock

    opened = penstock.connect(home)
    try:
        return [event for event in opened.events() if event.kind in kinds]
    finally:
        opened.close()
        time.sleep(0.02)


def _uneven(bench: Bench) -> tuple[float, float]:
    """(false alarms, steps) of a real training whose steps are uneven."""
    run, folder, home = _start(bench, "none", 100_000)
    subject = "uneven steps, really"
    try:
        subjects.wait_for(lambda: _events(home, "attempt.stepping"), run, _START)
        time.sleep(_REAL[bench.quick])
        steps = _steps(home)
    except subjects.TimedOut as error:
        bench.note(f"{subject}: {error}")
        bench.say((folder / "log").read_text(errors="replace")[-800:])
        return float("nan"), float("nan")
    finally:
        bench.children.clear()
    alarms = len(_events(home, "rank.hung"))
    bench.add(subject, "seconds", "s", _REAL[bench.quick])
    bench.add(subject, "steps", "", steps)
    bench.add(subject, "alarms", "", alarms)
    return alarms, steps


def _steps(home: Path) -> int:
    import penstock

    opened = penstock.connect(home)
    try:
        return int(opened.account("hang").ledger.steps)
    finally:
        opened.close()


def _simulated(bench: Bench) -> dict[str, float]:
    log = bench.folder("hours") / "log"
    script, hours = subjects.SCRIPTS / "hang_hours.py", _HOURS[bench.quick]
    command = [sys.executable, script, str(hours), str(bench.seed), str(_FLOOR)]
    if bench.start(command, log=log).wait(timeout=600):
        bench.note(f"the simulation failed: {log.read_text(errors='replace')[-500:]}")
        return {"hours": hours, "alarms": float("nan"), "found": 0}
    found: dict[str, float] = json.loads(log.read_text().splitlines()[-1])
    subject = "uneven steps, simulated"
    for key, unit in (("hours", "h"), ("steps", ""), ("looks", ""), ("alarms", "")):
        bench.add(subject, key, unit, found[key])
    bench.add(subject, "a stopped rank is found, at the latest", "s", found["latest"])
    return found
