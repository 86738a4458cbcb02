"""What a training step waits for checkpoints of 200 MB, and what they cost it in all.

16.8 million parameters with Adam, one rank of one thread on two cores, steps of some 50 ms of
compute and an optimiser's step. Saved every 10 and every 100 steps. Blocked: seconds between two
steps, and by which the optimiser's step takes longer than its median where nothing was saved. Drag:
by how much all steps took longer than those of the same loop without saving, in the same round.
Peers, all of which give checkpoints of one step: torch.save with fsync, DCP's save, DCP's
async_save, whose default copies before it returns, and torch_checkpointing, whose user guards the
optimiser's step by its lock; a save waits for the one before.

Prediction: Penstock blocks 1.5 ms (laying out some 100 tensors), DCP async_save some 60 ms (the
copy), the others 300 ms and more. Drag at every 100 steps: 1 % against 2 % of async_save; at every
10 steps hashing and writing take most of the second core, and disks decide: some 10 % against 20 %.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.frame.bench import Bench

_SUBJECT = Path(__file__).parent / "subjects" / "checkpoint_step.py"
_TIMEOUT = 300.0
_OURS, _BEST = "Penstock", "dcp.async_save"
_GUARDED = "torch_checkpointing"
_PEERS = ("torch.save", "dcp.save", _BEST, _GUARDED)
PEERS = {"torch-checkpointing": ["torch", "numpy", "torch-checkpointing==0.1.1"]}
_NEVER = 10**6  # steps


def measure(bench: Bench) -> None:
    steps = {10: 45, 100: 110} if bench.quick else {10: 105, 100: 410}
    for every, count in steps.items():
        bare: dict[str, float] = {}  # seconds of this round's loop that does not save

        def one(how: str, every: int = every, count: int = count, bare: Any = bare) -> None:
            alone = how == "no saving"
            found = _run(bench, how, _NEVER if alone else every, count)
            if found is None:
                return
            if alone:
                bare["seconds"] = found["seconds"]
                return
            name = f"{how}, every {every}"
            for blocked in _blocked(found):
                bench.add(name, "blocked", "ms", 1000 * blocked)
            if "seconds" in bare:
                bench.add(name, "drag", "%", 100 * (found["seconds"] / bare["seconds"] - 1))

        subjects = [lambda how=how, one=one: one(how) for how in (_OURS, *_PEERS)]
        for _ in range(bench.rounds(quick=1, full=5)):
            one("no saving")
            bench.alternate(1, *subjects)
        _judge(bench, every)


def _judge(bench: Bench, every: int) -> None:
    ours, best = f"{_OURS}, every {every}", f"{_BEST}, every {every}"
    bench.ratio(f"{best} / Penstock", "blocked", over=best, under=ours)
    bench.at_most(f"a step waits, every {every}", 2.0, bench.median(ours, "blocked"), "ms")
    samples = bench.samples.get((ours, "blocked", "ms"), [])
    if len(samples) > 1:
        p95 = statistics.quantiles(samples, n=20)[-1]
        bench.note(f"{ours}: blocked at most {p95:.1f} ms in 95 % of the saves")
    half = bench.median(best, "drag") / 2
    bench.at_most(
        f"half of async_save's drag, every {every}", half, bench.median(ours, "drag"), "%"
    )
    if every == 100:
        bench.at_most("drag, every 100", 2.0, bench.median(ours, "drag"), "%")


def _run(bench: Bench, how: str, every: int, steps: int) -> dict[str, Any] | None:
    result = bench.folder("result") / "result.json"
    asked = (how, every, steps, bench.folder("home"), result)
    python = bench.python("torch-checkpointing") if how == _GUARDED else sys.executable
    run = bench.start([python, _SUBJECT, *map(str, asked)], log=result.parent / "log")
    if run.wait(timeout=_TIMEOUT):
        bench.note(f"{how} ended with {run.returncode}")
        bench.say((result.parent / "log").read_text(errors="replace")[-1500:])
        return None
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def _blocked(found: dict[str, Any]) -> list[float]:
    """Seconds that each save kept the steps waiting."""
    usual = [s for s, saved in zip(found["optimizer"], found["saved"], strict=True) if not saved]
    median = statistics.median(usual)
    return [
        between + max(0.0, optimizer - median)
        for between, optimizer, saved in zip(
            found["between"], found["optimizer"], found["saved"], strict=True
        )
        if saved
    ]
