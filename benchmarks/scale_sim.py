"""One controller before 125 agents of 8 ranks each: what it costs, and how soon it decides.

Simulated, because a controller has one agent today and this machine has two cores: the agents and
their 1000 ranks are one process (`subjects/scale_agents.py`), which speaks to the controller as one
agent does, with its protocol, over its socket. Real are the controller's process, its loop,
`decide`, its lease, SQLite in a home on this disk, the reading of what 1000 ranks tell of their
steps, and the messages. Not simulated: checkpoints, network between nodes, ranks that ask
questions, and whoever will merge the messages of several nodes.

Ranks step four times a second, and each agent tells it when it sees it, so up to 500 messages a
second. Then 50 ranks die at once, spread over the agents, and all others with them, several times.
Measured: from the first death to the controller's order to kill what is left, and to the next gang;
its processor time; its write transactions.
"""

from __future__ import annotations

import json
import math
import struct
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks import _subjects as subjects
from benchmarks.frame.bench import Bench

_AGENTS, _RANKS, _DIE = 125, 8, 50
_STEP = 0.25  # seconds
_WINDOW = {True: 18.0, False: 60.0}  # seconds of undisturbed steps
_TIMEOUT = 90.0
_SUBJECT = "controller"


def measure(bench: Bench) -> None:
    deaths = bench.rounds(quick=3, full=9)  # ten failures in a row would end the run
    home, count = bench.folder("home"), bench.folder("count") / "count"
    runtime, signals, run = _home(home)
    script, log = subjects.SCRIPTS / "scale_agents.py", bench.folder("log") / "log"
    told = [str(each) for each in (_AGENTS, _RANKS, _STEP)]
    agents = _Agents(bench, [sys.executable, script, runtime, signals, run, *told], log)
    subjects.wait_for(lambda: (runtime / "processes.json").exists(), agents.process, _TIMEOUT)
    command: list[str | Path] = [
        sys.executable, subjects.SCRIPTS / "scale_controller.py", home, run, count
    ]  # fmt: skip
    controller = bench.start(command, log=log)
    try:
        agents.answer(_TIMEOUT)
        _undisturbed(bench, psutil.Process(controller.pid), count, _WINDOW[bench.quick])
        for _ in range(deaths):
            _deaths(bench, agents, psutil.Process(controller.pid), count)
    except subjects.TimedOut as error:
        bench.note(f"it did not get through: {error}")
        bench.say(log.read_text(errors="replace")[-1500:])
    bench.children.clear()
    attempts, slow = _events(home)
    bench.at_most("decides after 50 deaths", 1.0, bench.median(_SUBJECT, "deaths to kill"), "s")
    bench.at_most("cores that it uses", 1.0, bench.median(_SUBJECT, "cores, undisturbed"))
    bench.exactly("gangs that were started, one after each", deaths + 1, attempts)
    bench.exactly("the one slow rank of 1000 is named", 7, slow)


class _Agents:
    """The process of all agents, and what it answers."""

    def __init__(self, bench: Bench, command: list[str | Path], log: Path) -> None:
        self._asked, self._answers = log.with_name("asked"), log.with_name("answers")
        self._asked.touch()
        self.process = bench.start([*command, log.parent], log=log)
        self._read = 0

    def ask(self, line: str) -> None:
        with self._asked.open("a") as stream:
            stream.write(line + "\n")

    def answer(self, timeout: float) -> dict[str, float]:
        """The next answer. Raises TimedOut."""

        def line() -> str | None:
            lines = self._answers.read_text().splitlines(True) if self._answers.exists() else []
            whole = [each for each in lines if each.endswith("\n")]
            return whole[self._read] if len(whole) > self._read else None

        found: dict[str, float] = json.loads(subjects.wait_for(line, self.process, timeout))
        self._read += 1
        return found


def _home(home: Path) -> tuple[Path, Path, str]:
    """A home with a run that is to start: (runtime folder, folder of signals, its id)."""
    from penstock.base import ids
    from penstock.base.settings import load_settings
    from penstock.jobs.stores import open_stores
    from penstock.records import Run

    spec: dict[str, Any] = {
        "world_size": _AGENTS * _RANKS, "preload": [], "image_env": {}, "rank_env": {},
        "sidecars": {}, "cwd": str(home), "entry": "nobody:nothing",
        "config": {"type": None, "value": None}, "seed": 0,
        "threads": 1, "every_steps": None, "every_seconds": None, "steps": None,
    }  # fmt: skip
    run = Run(ids.new_id("run"), "scale", "train", "pending", spec, detached=True)
    settings = load_settings(folder=home, home=home, environment={})
    with open_stores(settings) as stores:
        with stores.meta.write() as tx:
            tx.add_run(run)
        layout = stores.layout
        return layout.runtime(f"run/{run.id}"), layout.signals(run.id), run.id


def _events(home: Path) -> tuple[int, float]:
    """(attempts, the first rank that was said to be slow): what it did must be seen in its rows."""
    import penstock

    opened = penstock.connect(home)
    try:
        events = opened.events()
    finally:
        opened.close()
    slow = [event.body["rank"] for event in events if event.kind == "rank.straggling"]
    return sum(event.kind == "attempt.started" for event in events), slow[0] if slow else math.nan


def _written(count: Path) -> int:
    (found,) = struct.unpack("<q", count.read_bytes())
    return int(found)


def _busy(controller: psutil.Process) -> float:
    used = controller.cpu_times()
    return float(used.user + used.system)


def _undisturbed(bench: Bench, controller: psutil.Process, count: Path, seconds: float) -> None:
    time.sleep(2.0)  # the first windows of what ranks tell
    busy, written, began = _busy(controller), _written(count), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    bench.add(_SUBJECT, "cores, undisturbed", "", (_busy(controller) - busy) / took)
    bench.add(_SUBJECT, "writes, undisturbed", "1/s", (_written(count) - written) / took)


def _deaths(bench: Bench, agents: _Agents, controller: psutil.Process, count: Path) -> None:
    busy, written = _busy(controller), _written(count)
    agents.ask(f"die {_DIE}")
    found = agents.answer(_TIMEOUT)
    bench.add(_SUBJECT, "deaths to kill", "s", found["killed"])
    bench.add(_SUBJECT, "deaths to the next gang's start", "s", found["started"])
    bench.add(_SUBJECT, "processor time of it", "s", _busy(controller) - busy)
    bench.add(_SUBJECT, "writes of it", "", _written(count) - written)
    time.sleep(2.0)  # the next gang steps
