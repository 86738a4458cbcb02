"""hang_hours.py HOURS SEED FLOOR: hours of uneven steps before the watch for hangs, by simulation.

Real are the ranks' pulses, the page of words and the agent's `HangWatch`; made up are the clock and
the times that things take. Eight ranks: in each step every rank computes for a log-normal time and
then waits for the slowest; every 5000 steps all evaluate, for up to ten minutes without a sign of
life, and every 500 all save, for up to a minute. The watch looks four times a second, as an agent
does. After each hour one rank stops for good, and must be found: a watch that sees nothing would
raise no alarm either.

Prints JSON: hours, looks, steps, alarms, found (stopped ranks that the watch named), latest
(seconds from the stop to the verdict, the longest).
"""

from __future__ import annotations

import json
import math
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from penstock.jobs import hang, pulse
from penstock.jobs.agent.hangs import HangWatch
from penstock.jobs.words import CHECKPOINT, COMPUTE, EVALUATE, Words

RANKS = 8
TICK = 250_000_000  # nanoseconds
HOUR = 3_600_000_000_000
SHAPES = ((0.05, 0.3), (0.05, 0.7), (0.3, 0.5), (0.02, 1.0))  # median seconds, sigma


@dataclass
class Clock:
    now: int = 1_000_000_000_000

    def monotonic_ns(self) -> int:
        return self.now


@dataclass
class Hour:
    """One gang's. `wait` lets time pass, and the watch look."""

    clock: Clock
    floor: float
    words: Words = field(default_factory=lambda: Words.create(RANKS))
    looks: int = 0
    alarms: int = 0

    def __post_init__(self) -> None:
        self.pulses = [pulse.Pulse(self.words, rank) for rank in range(RANKS)]
        self.watch = self._watch()
        self.next_look = self.clock.now + TICK

    def _watch(self) -> HangWatch:
        file = Path("/nonexistent/stacks")
        child: Any = SimpleNamespace(pid=None, dead=False, told_end=False, stacks=file, folders=[])
        ranks = dict.fromkeys(range(RANKS), child)
        return HangWatch(self.words, ranks, self.floor, self.clock.monotonic_ns)

    def until(self, at: int) -> bool:
        """Whether the watch raised an alarm on the way."""
        while self.next_look <= at:
            self.clock.now = self.next_look
            self.looks += 1
            self.next_look += TICK
            if self.watch.look():
                self.alarms += 1
                return True
        self.clock.now = at
        return False


def ns(seconds: float) -> int:
    return int(seconds * 1e9)


def step(hour: Hour, draw: random.Random, shape: tuple[float, float], number: int) -> None:
    """All ranks compute, each until its own time; the step is complete with the slowest."""
    began = hour.clock.now
    middle, sigma = math.log(shape[0]), shape[1]
    for each in hour.pulses:
        each.enter(COMPUTE)
    ends = max(began + ns(draw.lognormvariate(middle, sigma)) for _ in range(RANKS))
    hour.until(ends)
    for rank, each in enumerate(hour.pulses):
        hour.words.set_step(rank, number)
        each.step_done()
    for every, phase, longest in ((5000, EVALUATE, 600.0), (500, CHECKPOINT, 60.0)):
        if number % every == 0:
            alone(hour, draw, phase, longest)


def alone(hour: Hour, draw: random.Random, phase: int, longest: float) -> None:
    """An evaluation or a checkpoint: no sign of life until it is over."""
    phases = [each.during(phase) for each in hour.pulses]
    for each in phases:
        each.__enter__()
    hour.until(hour.clock.now + ns(draw.uniform(0, longest)))
    for each in phases:
        each.__exit__(None, None, None)


def stopped(hour: Hour, draw: random.Random) -> tuple[bool, float]:
    """One rank shows no sign any more; the others wait. (Whether it was named, after seconds.)"""
    culprit, began = draw.randrange(RANKS), hour.clock.now
    for rank, each in enumerate(hour.pulses):
        each.enter(COMPUTE)
        if rank != culprit:
            hour.words.set_step(rank, hour.words.steps()[rank] + 1)
    found = hour.until(began + ns(600))
    hour.alarms -= found
    account = hour.watch.account or {}
    return found and account.get("rank") == culprit, (hour.clock.now - began) / 1e9


def main(hours: int, seed: int, floor: float) -> None:
    draw, clock = random.Random(seed), Clock()
    pulse.time = clock  # type: ignore[attr-defined]  # the clock that ranks mark their words by
    total = {"hours": hours, "looks": 0, "steps": 0, "alarms": 0, "found": 0}
    latest = 0.0
    for number in range(hours):
        hour, steps, ends = Hour(clock, floor), 0, clock.now + HOUR
        while clock.now < ends and not hour.alarms:
            steps += 1
            step(hour, draw, SHAPES[number % len(SHAPES)], steps)
        total["alarms"] += hour.alarms
        if not hour.alarms:
            named, seconds = stopped(hour, draw)
            total["found"] += named
            latest = max(latest, seconds)
        total["looks"] += hour.looks
        total["steps"] += steps
        hour.words.close()
    print(json.dumps({**total, "latest": latest, "times": hang.TIMES}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
