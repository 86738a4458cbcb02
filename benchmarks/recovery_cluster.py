"""A host loses its power, or its network, or a rank there is killed -> the next completed step.

Beside Ray Train, on the same hosts: each is a set of namespaces with a network, processes and
memory of its own; a head and two nodes with room for one rank each. The same small training as in
`recovery` (the digits CNN, steps that compute 50 ms, a checkpoint every 20 steps) goes on with one
rank or two. Both keep their checkpoints in a folder that all hosts see. Needs root.

What we expect, written down before the first measurement (seconds, median):

    power of a host      2.8   the last of its signs of life came 0.25 before, 2.5 of silence, 0.05
                               until it is looked for; then 0.3 as after a death on one machine, of
                               which the checkpoint is read from the shared folder
    network of a host    2.8   the same: to the other side it is the same
    a rank on a host     0.35  as on one machine, 0.22, and the states in memory are not used, as no
                               agent has all ranks: the checkpoint is read; two hosts to be told
    Ray Train            20    or more, where a host is silent: Ray misses five looks of three
                               seconds; then workers, who import torch, start; 10 for a rank
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import _subjects as subjects
from benchmarks.frame.bench import Bench

PEERS = subjects.RAY_TRAIN
_COUNT = 100_000  # steps: it is ended when it has been seen to go on
_AT = 25  # the step after which the fault strikes, at the earliest
_MORE = 15  # steps, at most, until it does
_START = 180.0  # seconds for a subject to reach the step of the fault
_PATIENCE = 150.0  # seconds for the next step after a fault
_STEP = 0.05  # seconds
_PENSTOCK, _RAY = "Penstock", "Ray Train"
_POWER, _NETWORK, _RANK = "power of a host cut", "host cut off the network", "rank killed"
_GOALS = {_POWER: 3.0, _NETWORK: 4.0, _RANK: 0.5}  # seconds


@dataclass
class Seen:
    """lost  faults without a recovery, in words"""

    lost: list[tuple[str, str]] = field(default_factory=list)


def measure(bench: Bench) -> None:
    env = {**subjects.write_digits(bench.scratch), "BENCH_STEP": str(_STEP)}
    rounds = bench.rounds(quick=1, full=5)
    seen = Seen()
    moments = {(fault, number): _draw(bench) for fault in _GOALS for number in range(rounds)}
    numbers = {name: iter(range(rounds)) for name in (_PENSTOCK, _RAY)}

    def subject(name: str) -> Callable[[], None]:
        def run() -> None:
            number = next(numbers[name])
            for fault in _GOALS:
                _struck(bench, env, name, fault, moments[fault, number], seen)

        return run

    bench.alternate(rounds, subject(_PENSTOCK), subject(_RAY))
    _judge(bench, seen)


def _draw(bench: Bench) -> tuple[int, int, float]:
    """(rank, step, seconds into the next one)"""
    draw = bench.random
    return draw.randrange(2), _AT + draw.randrange(_MORE), draw.uniform(0, _STEP)


def _struck(
    bench: Bench,
    env: dict[str, str],
    name: str,
    fault: str,
    moment: tuple[int, int, float],
    seen: Seen,
) -> None:
    """A cluster, a training, a fault; adds how long it was until the next step."""
    from tests.ray_hosts import RayHosts

    python = str(bench.python("ray-train")) if name == _RAY else None
    cluster = RayHosts(python=python, shared=[bench.scratch])
    try:
        for _ in range(2):
            cluster.add()
        record = bench.folder("record")
        run = (_penstock if name == _PENSTOCK else _ray)(bench, env, cluster, record)
        _measure(bench, name, fault, cluster, record, run, moment)
    except subjects.TimedOut as error:
        seen.lost.append((name, f"{fault}: {error}"))
        bench.say(f"  {name} did not recover ({fault}): {error}")
    finally:
        cluster.close()
        bench.children.clear()


def _penstock(bench: Bench, env: dict[str, str], cluster: Any, record: Path) -> Any:
    home = bench.folder("home")
    where = {"PENSTOCK_ENGINE": cluster.engine, "PENSTOCK_BLOBS": f"file://{home}/shared"}
    both = {**env, **cluster.environment, **where}
    return subjects.penstock(bench, both, home, record, _COUNT, ranks="1-2")


def _ray(bench: Bench, env: dict[str, str], cluster: Any, record: Path) -> Any:
    script = subjects.SCRIPTS / "cluster_ray.py"
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    both = {**env, **cluster.environment, **quiet}
    command = [str(bench.python("ray-train")), str(script), str(record), str(_COUNT)]
    return cluster.head.begin(*command, cluster.address, env=both)


def _measure(
    bench: Bench,
    name: str,
    fault: str,
    cluster: Any,
    record: Path,
    run: Any,
    moment: tuple[int, int, float],
) -> None:
    rank, step, delay = moment

    def reached() -> bool:
        done = [subjects.steps(record, each) for each in range(subjects.RANKS)]
        return all(each and each[-1].step >= step for each in done)

    subjects.wait_for(reached, run, _START)
    time.sleep(delay)
    host, pid = _where(cluster, rank)
    before = {(each, row.pid) for each in range(2) for row in subjects.steps(record, each)}
    struck = time.time()
    _strike(fault, host, pid)

    def replaced() -> float | None:
        found = [
            row.at
            for each in range(subjects.RANKS)
            for row in subjects.steps(record, each)
            if (each, row.pid) not in before and row.at > struck
        ]
        return min(found, default=None)

    bench.add(name, fault, "s", subjects.wait_for(replaced, run, _PATIENCE) - struck)


def _where(cluster: Any, rank: int) -> tuple[Any, int]:
    """The host of a rank, and its process there: who has its record open."""
    for host in cluster.nodes:
        for pid in host.pids():
            for entry in Path(f"/proc/{pid}/fd").glob("*"):
                if os.path.realpath(entry).endswith(f"/rank-{rank}"):
                    return host, pid
    raise subjects.TimedOut(f"nobody is rank {rank}")


def _strike(fault: str, host: Any, pid: int) -> None:
    if fault == _POWER:
        host.power_cut()
    elif fault == _NETWORK:
        host.cut()
    else:
        os.kill(pid, signal.SIGKILL)


def _judge(bench: Bench, seen: Seen) -> None:
    for fault, goal in _GOALS.items():
        bench.at_most(f"Penstock, {fault}, median", goal, bench.median(_PENSTOCK, fault), "s")
        ratio = bench.ratio(f"Ray Train / Penstock, {fault}", fault, over=_RAY, under=_PENSTOCK)
        bench.at_least(f"faster than Ray Train, {fault}", 5, ratio, "times")
    for name, line in seen.lost:
        bench.note(f"no recovery, not in the figures: {name}, {line}")
    ours = [line for name, line in seen.lost if name == _PENSTOCK]
    bench.exactly("Penstock's faults without recovery", 0, len(ours))
