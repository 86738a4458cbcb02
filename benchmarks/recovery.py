"""SIGKILL of a random rank at a random moment -> the next completed step, beside torchrun.

Each round starts the same small training (the digits CNN, 2 ranks, a checkpoint every 20 steps)
with each subject, kills the same rank at the same step, and reads from the replaced rank's own
record when it completed its first step. Both subjects write that record in the same way.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _subjects as subjects
from benchmarks.frame.bench import Bench

PEERS = subjects.TORCHRUN
_STEPS = {True: 100, False: 150}  # quick or not; kills keep 25 steps from either end
_START = 60.0  # seconds for a subject to reach the step of the kill
_METRIC = "kill to next step"


@dataclass(frozen=True)
class Kill:
    """rank, after which step, and how many seconds into the next one (a step takes about 0.015)"""

    rank: int
    step: int
    delay: float


def measure(bench: Bench) -> None:
    env = subjects.write_digits(bench.scratch)
    rounds = bench.rounds(quick=3, full=10)
    kills = [_draw(bench) for _ in range(rounds)]
    our_kills, their_kills = iter(kills), iter(kills)  # the same for both
    weights: list[str | None] = []
    hung: list[str] = []

    def ours() -> None:
        home, record = bench.folder("home"), bench.folder("record")
        run = subjects.penstock(bench, env, home, record, _STEPS[bench.quick])
        killed_at = _measure(bench, "Penstock", run, record, next(our_kills), hung)
        weights.append(_finish(run, record))
        if killed_at:
            _profile(bench, home, killed_at)

    def theirs() -> None:
        record = bench.folder("record")
        run = subjects.torchrun(bench, env, record, _STEPS[bench.quick])
        _measure(bench, "torchrun", run, record, next(their_kills), hung)
        bench.children.clear()

    twin = _undisturbed(bench, env)
    bench.alternate(rounds, ours, theirs)
    _judge(bench, twin, weights, hung)


def _draw(bench: Bench) -> Kill:
    ranks, steps = range(subjects.RANKS), range(25, _STEPS[bench.quick] - 25)
    draw = bench.random
    return Kill(draw.choice(ranks), draw.choice(steps), draw.uniform(0, 0.02))


def _undisturbed(bench: Bench, env: dict[str, str]) -> str | None:
    """The final weights that every other run must have."""
    record = bench.folder("record")
    return _finish(
        subjects.penstock(bench, env, bench.folder("home"), record, _STEPS[bench.quick]), record
    )


def _measure(
    bench: Bench, subject: str, run: Any, record: Path, kill: Kill, hung: list[str]
) -> float | None:
    """Kill one rank and add what followed; returns when it was killed, None if nothing followed."""
    rank = kill.rank

    def reached() -> subjects.Step | None:
        done = subjects.steps(record, rank)
        return done[-1] if done and done[-1].step >= kill.step else None

    def replaced() -> subjects.Step | None:
        others = (each for each in subjects.steps(record, rank) if each.pid != victim)
        return next(others, None)

    try:
        victim = subjects.wait_for(reached, run, _START).pid
        time.sleep(kill.delay)
        killed_at = time.time()
        os.kill(victim, signal.SIGKILL)
        found = subjects.wait_for(replaced, run, 12.0 if bench.quick else 60.0)
    except subjects.TimedOut as error:
        hung.append(f"{subject} (rank {rank}, step {kill.step}): {error}")
        log = (record / "log").read_text(errors="replace")[-800:]
        bench.say(f"  {subject} did not recover: {error}\n{log}")
        return None
    last = [each for each in subjects.steps(record, rank) if each.pid == victim][-1]
    bench.add(subject, _METRIC, "s", found.at - killed_at)
    bench.add(subject, "steps done again", "steps", last.step - found.step + 1)
    return killed_at


def _finish(run: Any, record: Path) -> str | None:
    """The final weights' digest, None when the run did not come to its end."""
    try:
        digest: str = subjects.wait_for(
            lambda: run.poll() == 0 and (record / "weights").read_text(), run, _START
        )
    except subjects.TimedOut:
        return None
    return digest


def _profile(bench: Bench, home: Path, killed_at: float) -> None:
    """Where the time went, from the run's own events: seconds after the kill."""
    import penstock

    opened = penstock.connect(home)
    try:
        events = opened.events()
    finally:
        opened.close()
    died = next(e.body["seen_at"] for e in events if e.kind == "rank.died")
    bench.add("Penstock", "  kill to death seen", "s", died - killed_at)
    for kind, what in (("attempt.started", "gang ordered"), ("gang.started", "ranks forked"),
                       ("attempt.resumed", "checkpoint restored")):  # fmt: skip
        at = next((e.at for e in events if e.kind == kind and e.at > died), None)
        if at is not None:
            bench.add("Penstock", f"  kill to {what}", "s", at - killed_at)


def _judge(bench: Bench, twin: str | None, weights: list[str | None], hung: list[str]) -> None:
    equal = [digest is not None and digest == twin for digest in weights]
    times = bench.ratio("torchrun / Penstock", _METRIC, over="torchrun", under="Penstock")
    ours = bench.median("Penstock", _METRIC)
    bench.at_most("Penstock's next step, median", 0.3, ours, "s")
    bench.at_least("faster than torchrun", 10, times, "times")
    bench.exactly("killed runs with the weights of the undisturbed one", len(equal), sum(equal))
    for line in hung:
        bench.note(f"no recovery, not in the figures: {line}")
    ended = [line for line in hung if line.startswith("Penstock")]
    bench.exactly("Penstock's kills without recovery", 0, len(ended))
