"""Processor time that a trainer adds to a step, beside a bare DistributedDataParallel loop.

Two ranks, a model of 340 parameters, thousands of steps of nothing else. Penstock with all that it
does in a step: what it tells of its time, signs of life, `run.log` of the loss, `run.every`,
tracking, the judging of gradients with `spikes=`, the comparison of ranks every 1000 steps. The
peers have no logger and no tracker, and do none of the rest. Processor time of the ranks' processes
with all their threads, not the clock: other work on the machine counts little. Checkpoints are not
part of it: none falls due.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from benchmarks import _subjects as subjects
from benchmarks.frame.bench import Bench

TRAINERS = {"trainers": ["torch", "numpy", "accelerate", "pytorch-lightning"]}
PEERS = subjects.TORCHRUN | TRAINERS
_BARE = "bare DDP loop"
_METRIC, _ADDED = "processor time of a step, a rank", "more than the bare loop in its round"
_TIMEOUT = 300.0


def measure(bench: Bench) -> None:
    steps = 3_000 if bench.quick else 10_000
    round_of: dict[str, list[float]] = {}

    def under_torchrun(subject: str, environment: str, script: str) -> None:
        folder = bench.folder("result")
        command: list[str | Path] = [
            *(bench.python(environment), "-m", "torch.distributed.run", "--standalone"),
            *(f"--nproc-per-node={subjects.RANKS}", subjects.SCRIPTS / script, folder, str(steps)),
        ]
        _run(bench, subject, command, folder, steps, {}, round_of)

    def penstock() -> None:
        folder, home = bench.folder("result"), bench.folder("home")
        script = subjects.SCRIPTS / "overhead_penstock.py"
        command: list[str | Path] = [sys.executable, script, folder, str(steps)]
        _run(bench, "Penstock", command, folder, steps, {"PENSTOCK_HOME": str(home)}, round_of)

    rounds = bench.rounds(quick=3, full=7)
    bench.alternate(
        rounds,
        lambda: under_torchrun(_BARE, "torch", "overhead_bare.py"),
        penstock,
        lambda: under_torchrun("Accelerate", "trainers", "overhead_accelerate.py"),
        lambda: under_torchrun("Lightning Fabric", "trainers", "overhead_fabric.py"),
    )
    floor = round_of.get(_BARE, [])
    for subject, found in round_of.items():
        for ours, bare in zip(found, floor, strict=False):
            if subject != _BARE:
                bench.add(subject, _ADDED, "us", ours - bare)
        bench.ratio(f"{subject} / {_BARE}", _METRIC, over=subject, under=_BARE)
    added = bench.median("Penstock", _ADDED)
    bench.at_most("Penstock adds to a step", 50, added, "us")
    counts = [len(round_of.get(each, ())) for each in (_BARE, "Penstock")]
    bench.exactly("rounds in which both did all their steps", rounds, min(counts))


def _run(
    bench: Bench,
    subject: str,
    command: list[str | Path],
    folder: Path,
    steps: int,
    env: dict[str, str],
    round_of: dict[str, list[float]],
) -> None:
    """One training; a subject of which a rank did not do all steps has no figure."""
    log = folder / "log"
    ended = bench.start(command, env=env, log=log).wait(timeout=_TIMEOUT)
    found = [json.loads(each.read_text()) for each in sorted(folder.glob("rank-*.json"))]
    if ended or [each["steps"] for each in found] != [steps] * subjects.RANKS:
        bench.note(f"{subject} did not do its steps (exit code {ended})")
        bench.say(log.read_text(errors="replace")[-800:])
        return
    busy = 1e6 * statistics.mean(each["busy"] for each in found) / steps
    bench.add(subject, _METRIC, "us", busy)
    bench.add(subject, "wall time of a step", "us", 1e6 * found[0]["wall"] / steps)
    round_of.setdefault(subject, []).append(busy)
