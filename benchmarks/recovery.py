"""SIGKILL of a random rank at a random moment -> the next completed step, beside others.

Beside torchrun, with fresh stores and as it comes, and Ray Train as it comes. Each round starts the
same small training (the digits CNN, 2 ranks, steps that compute 50 ms, a checkpoint every 20 steps)
with each subject, kills the same rank at the same step, and reads from the replaced rank's own
record when it completed its first step: the one after the checkpoint that was restored. All
subjects write that record in the same way.
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

PEERS = subjects.TORCHRUN | subjects.RAY_TRAIN
_STEPS = {True: 60, False: 120}  # quick or not; kills keep 25 steps from the start, 15 from the end
_START = 90.0  # seconds for a subject to reach the step of the kill, or its end
_PATIENCE = 45.0  # seconds for the next step after a kill
_FEWER = {"torchrun, as it comes": 3, "Ray Train": 10}  # kills of those that take long, at most
_STEP = 0.05  # seconds
_METRIC = "kill to next step"
_PENSTOCK, _TORCHRUN, _DEFAULT, _RAY = "Penstock", "torchrun", "torchrun, as it comes", "Ray Train"


@dataclass(frozen=True)
class Kill:
    """rank, after which step, and how many seconds into the next one"""

    rank: int
    step: int
    delay: float


@dataclass
class Seen:
    """weights  digests of Penstock's killed runs, None where one did not come to its end
    lost     kills without a recovery, in words
    """

    weights: list[str | None] = field(default_factory=list)
    lost: list[tuple[str, str]] = field(default_factory=list)


def measure(bench: Bench) -> None:
    env = {**subjects.write_digits(bench.scratch), "BENCH_STEP": str(_STEP)}
    rounds = bench.rounds(quick=3, full=20)
    kills = [_draw(bench) for _ in range(rounds)]
    seen, count = Seen(), _STEPS[bench.quick]

    def ours() -> None:
        home, record = bench.folder("home"), bench.folder("record")
        run = subjects.penstock(bench, env, home, record, count)
        killed_at = _measure(bench, _PENSTOCK, run, record, next(given[_PENSTOCK]), seen)
        seen.weights.append(_finish(run, record))
        if killed_at:
            _profile(bench, home, killed_at)
        bench.children.clear()

    def peer(name: str, start: Callable[[Path], Any]) -> None:
        if (kill := next(given[name], None)) is None:
            return
        record = bench.folder("record")
        _measure(bench, name, start(record), record, kill, seen)
        bench.children.clear()

    subject = (_PENSTOCK, _TORCHRUN, _DEFAULT, _RAY)
    given = {name: iter(kills[: _FEWER.get(name)]) for name in subject}  # the same for all
    torchrun = lambda to, how: subjects.torchrun(bench, env, to, count, how)  # noqa: E731
    twin = _undisturbed(bench, env)
    bench.alternate(
        rounds,
        ours,
        lambda: peer(_TORCHRUN, lambda to: torchrun(to, subjects.FRESH)),
        lambda: peer(_DEFAULT, lambda to: torchrun(to, {})),
        lambda: peer(_RAY, lambda to: subjects.ray_train(bench, env, to, count)),
    )
    _judge(bench, twin, seen, rounds)


def _draw(bench: Bench) -> Kill:
    ranks, steps = range(subjects.RANKS), range(25, _STEPS[bench.quick] - 15)
    draw = bench.random
    return Kill(draw.choice(ranks), draw.choice(steps), draw.uniform(0, _STEP))


def _undisturbed(bench: Bench, env: dict[str, str]) -> str | None:
    """The final weights that every other run must have."""
    record = bench.folder("record")
    return _finish(
        subjects.penstock(bench, env, bench.folder("home"), record, _STEPS[bench.quick]), record
    )


def _measure(
    bench: Bench, subject: str, run: Any, record: Path, kill: Kill, seen: Seen
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
        found = subjects.wait_for(replaced, run, _PATIENCE)
    except subjects.TimedOut as error:
        seen.lost.append((subject, f"rank {rank}, step {kill.step}: {error}"))
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


def _judge(bench: Bench, twin: str | None, seen: Seen, rounds: int) -> None:
    for name in (_PENSTOCK, _TORCHRUN, _DEFAULT, _RAY):
        bench.percentile(name, _METRIC, 0.95)
    equal = [digest is not None and digest == twin for digest in seen.weights]
    torchrun = bench.ratio("torchrun / Penstock", _METRIC, over=_TORCHRUN, under=_PENSTOCK)
    ray = bench.ratio("Ray Train / Penstock", _METRIC, over=_RAY, under=_PENSTOCK)
    ours = bench.median(_PENSTOCK, _METRIC)
    bench.at_most("Penstock's next step, median", 0.25, ours, "s")
    bench.at_least("faster than torchrun", 15, torchrun, "times")
    bench.at_least("faster than Ray Train", 45, ray, "times")
    bench.exactly("killed runs with the weights of the undisturbed one", rounds, sum(equal))
    for name, line in seen.lost:
        bench.note(f"no recovery, not in the figures: {name}, {line}")
    ended = [line for name, line in seen.lost if name == _PENSTOCK]
    bench.exactly("Penstock's kills without recovery", 0, len(ended))
    for name in (_TORCHRUN, _DEFAULT, _RAY):
        lost = sum(name == each for each, _ in seen.lost)
        kills = min(rounds, _FEWER.get(name, rounds))
        bench.note(f"{name}: {lost} of {kills} kills without recovery")
