"""scale_agents.py RUNTIME SIGNALS RUN AGENTS RANKS STEP FOLDER: many agents before one controller.

A controller has one agent today, so this is one on the wire: it speaks the real protocol over the
real socket (`jobs.rpc`, with the agent's own `Outbox` and session), for a gang of AGENTS x RANKS
ranks. Behind it are AGENTS threads of one clock, each of which looks at its ranks four times a
second, as an agent does, and tells when they are further: the message has the steps of all, as the
one agent's has. Nobody computes: ranks are numbers that go on by one every STEP seconds, and tell
their four scalars a step by real emitters into the run's folder.

A line "die N" in FOLDER/asked (N ranks die at once, spread over the agents; all others follow, as
an agent sees to it) is answered in FOLDER/answers by {"killed": s, "started": s}: seconds until the
controller's `kill` and its next `start` arrived. The first answer comes once all ranks step.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

from penstock.base import process
from penstock.jobs import rpc
from penstock.jobs.agent.__main__ import Sessions
from penstock.jobs.agent.outbox import Outbox
from penstock.signals import Emitter

LOOK = 0.25  # seconds between an agent's looks at its ranks
# Shares of a step. The slow rank waits for data and keeps the others waiting: it must be named.
USUAL = {"step": 1.0, "checkpoint": 0.0, "collective": 0.6, "data": 0.0}
SLOW, SLOWLY = 7, {**USUAL, "collective": 0.2, "data": 0.4}


class Agents:
    """All of them. `submit` and `outbox` are what a session wants of an agent."""

    def __init__(self, agents: int, ranks: int, step: float) -> None:
        self.outbox = Outbox()
        self.commands: queue.Queue[dict[str, Any]] = queue.Queue()
        self.agents, self.each, self.ranks = agents, ranks, agents * ranks
        self.step = step
        self.gang = 0
        self.generation = 0
        self.lock = threading.Lock()
        self.steps = [0] * self.ranks
        self.began: float | None = None  # the gang's; None: nobody runs
        self.arrived: dict[str, threading.Event] = {
            "kill": threading.Event(), "start": threading.Event()
        }  # fmt: skip

    def submit(self, message: dict[str, Any]) -> None:
        self.commands.put(message)

    def obey(self) -> None:
        """The controller's commands, one by one, in a thread of their own."""
        while True:
            for kind, body in self.commands.get().items():
                if kind == "attached":
                    self.outbox.put("holds", {"gang": self.gang, "to": body["generation"]})
                elif kind == "ack":
                    self.outbox.acknowledge(body)
                elif kind == "start":
                    self.begin(body)
                elif kind == "shutdown":
                    os._exit(0)
                if kind in self.arrived:
                    self.arrived[kind].set()

    def begin(self, body: dict[str, Any]) -> None:
        pids = {str(rank): 1_000_000 + rank for rank in range(self.ranks)}
        with self.lock:
            self.gang, self.generation = int(body["gang"]), int(body["generation"])
            self.steps = [0] * self.ranks
            self.outbox.put("started", {"gang": self.gang, "pids": pids})
            told = {"kind": "stepping", "payload": {"step": 1, "at": time.time()}}
            self.outbox.put("tell", {"gang": self.gang, "rank": 0, **told})
            self.began = time.monotonic()

    def live(self, number: int) -> None:
        """One agent: looks, and tells when its ranks are further."""
        mine = range(number * self.each, (number + 1) * self.each)
        time.sleep(LOOK * number / self.agents)
        while True:
            time.sleep(LOOK)
            with self.lock:
                if self.began is None:
                    continue
                step = int((time.monotonic() - self.began) / self.step)
                if step == self.steps[mine[0]]:
                    continue
                self.steps[mine.start : mine.stop] = [step] * self.each
                told = {"gang": self.gang, "steps": self.steps}
                self.outbox.replace("progress", {**told, "steps": list(self.steps)})

    def die(self, count: int) -> dict[str, float]:
        """returns  seconds until the controller's kill, and its next start, arrived"""
        first = list(range(0, self.ranks, self.ranks // count))[:count]
        others = [rank for rank in range(self.ranks) if rank not in set(first)]
        for each in self.arrived.values():
            each.clear()
        with self.lock:
            self.began = None
            began = time.monotonic()
            for rank in [*first, *others]:
                self.outbox.put("exited", self._exit(rank))
            self.outbox.put("gone", {"gang": self.gang})
        found = {}
        for name, kind in (("killed", "kill"), ("started", "start")):
            if not self.arrived[kind].wait(60):
                raise SystemExit(f"the controller did not say {kind} within a minute")
            found[name] = time.monotonic() - began
        return found

    def _exit(self, rank: int) -> dict[str, Any]:
        pid = 1_000_000 * (self.gang + 1) + rank
        how = {"signal": "SIGKILL", "code": None, "told": False, "oom": False}
        return {"gang": self.gang, "rank": rank, "pid": pid, "seen_at": time.time(), **how}


def tell(agents: Agents, folder: Path, run: str) -> None:
    """What all ranks tell of their steps, in one thread: what ranks spend is not measured here."""
    emitters: list[Emitter] = []
    generation, told = 0, 0
    while True:
        time.sleep(0.05)
        if agents.began is None or agents.generation == 0:
            continue
        if agents.generation != generation:
            for each in emitters:
                each.close()
            generation, told = agents.generation, 0
            emitters = [
                Emitter(folder, run, rank, generation, segment_bytes=1 << 18)
                for rank in range(agents.ranks)
            ]
        step = max(agents.steps)
        for number in range(told + 1, step + 1):
            for each in emitters:
                shares = SLOWLY if each.rank == SLOW else USUAL
                scalars = {f"penstock/{k}_seconds": agents.step * v for k, v in shares.items()}
                each.scalars(number, scalars)
        told = max(told, step)


def main() -> None:
    runtime, signals, run = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    agents = Agents(int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6]))
    folder = Path(sys.argv[7])
    _server = rpc.serve(f"unix:{runtime / 'agent.sock'}", Sessions(agents).session)  # type: ignore[arg-type]
    row = {"role": "agent", "pid": os.getpid(), "started": process.start_time(os.getpid())}
    (runtime / "processes.json").write_text(json.dumps([row]))
    loops = [lambda n=n: agents.live(n) for n in range(agents.agents)]
    for each in (agents.obey, lambda: tell(agents, signals, run), *loops):
        threading.Thread(target=each, daemon=True).start()
    while min(agents.steps) < 1:
        time.sleep(0.01)
    answer(folder, {"up": agents.steps[0]})
    done = 0
    while True:
        time.sleep(0.01)
        asked = (folder / "asked").read_text().splitlines()
        for line in asked[done:]:
            answer(folder, agents.die(int(line.split()[1])))
        done = len(asked)


def answer(folder: Path, body: dict[str, float]) -> None:
    with (folder / "answers").open("a") as stream:
        stream.write(json.dumps(body) + "\n")


if __name__ == "__main__":
    main()
