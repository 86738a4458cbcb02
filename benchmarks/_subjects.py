"""How benchmarks start the subjects of `subjects/` and read their records."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.frame.bench import Bench

SCRIPTS = Path(__file__).parent / "subjects"
TORCHRUN = {"torch": ["torch", "numpy"]}  # the environment of torchrun and of the bare loop
RAY_TRAIN = {"ray-train": ["ray[client,train]==2.60.0", "torch", "numpy"]}
RANKS = 2
FRESH = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}  # torchrun: stores of their own for restarts
POLL = 0.01  # seconds between two looks at a record, whose lines have their own times


class TimedOut(Exception):
    """A subject did not do in time what was waited for."""


@dataclass(frozen=True)
class Step:
    """A step that a rank completed; at in seconds of time.time()."""

    step: int
    pid: int
    at: float


def write_digits(folder: Path) -> dict[str, str]:
    """Write the data once; returns the environment that tells subjects where it is."""
    import numpy as np
    from sklearn.datasets import load_digits

    found = load_digits()
    path = folder / "digits.npz"
    np.savez(
        path,
        id=np.array([f"digit-{n:04d}" for n in range(len(found.target))]),
        image=(found.images / 16).astype("float32"),
        label=found.target.astype("int64"),
    )
    return {"BENCH_DIGITS": str(path)}


def steps(record: Path, rank: int) -> list[Step]:
    """What a rank has completed so far; a line that is just being written is left out."""
    try:
        text = (record / f"rank-{rank}").read_text()
    except FileNotFoundError:
        return []
    lines = [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]
    return [Step(int(step), int(pid), float(at)) for step, pid, at in lines]


def all_stepped(record: Path, ranks: int = RANKS) -> bool:
    """Whether every rank has completed a step."""
    return all(steps(record, rank) for rank in range(ranks))


def wait_for(what: Callable[[], Any], subject: Any, timeout: float) -> Any:
    """The first true answer of `what`.

    Raises TimedOut after `timeout` seconds, or when the subject ended without it.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        ended = subject.poll() is not None  # before the look: what it did last must count
        if found := what():
            return found
        if ended:
            raise TimedOut(f"it ended with {subject.returncode}")
        time.sleep(POLL)
    raise TimedOut(f"nothing within {timeout:g} s")


def penstock(
    bench: Bench,
    env: dict[str, str],
    home: Path,
    record: Path,
    count: int,
    *second: Path,
    ranks: int | str = RANKS,
) -> Any:
    """Start the training with Penstock in a home; then once more with a second record.

    ranks  a number, or a range: "1-2"
    """
    script = SCRIPTS / "with_penstock.py"
    env = {**env, "PENSTOCK_HOME": str(home)}
    command: list[str | Path] = [sys.executable, script, record, str(count), str(ranks), *second]
    return bench.start(command, env=env, log=record / "log")


def torchrun(
    bench: Bench, env: dict[str, str], record: Path, count: int, how: dict[str, str] = FRESH
) -> Any:
    """Start it under torchrun. By default its store is shared with the ranks, which after a restart
    may read dead addresses in it and hang: so with fresh stores, unless `how` is {}."""
    script = SCRIPTS / "with_torch.py"
    command: list[str | Path] = [
        *(bench.python("torch"), "-m", "torch.distributed.run", "--standalone"),
        *(f"--nproc-per-node={RANKS}", "--max-restarts=1000", script, record, str(count)),
    ]
    return bench.start(command, env={**env, **how}, log=record / "log")


def ray_train(bench: Bench, env: dict[str, str], record: Path, count: int) -> Any:
    """Start it with Ray Train, on a cluster of its own that takes a token."""
    script, token = SCRIPTS / "with_ray.py", f"{bench.random.getrandbits(256):064x}"
    temporary = bench.scratch / "r"  # short: paths of sockets are limited
    command: list[str | Path] = [bench.python("ray-train"), script, record, str(count), str(RANKS)]
    env = {**env, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
    return bench.start([*command, temporary], env={**env, **quiet}, log=record / "log")


def bare(bench: Bench, env: dict[str, str], record: Path, count: int) -> Any:
    """Start it as one plain process."""
    command: list[str | Path] = [
        bench.python("torch"),
        SCRIPTS / "with_torch.py",
        record,
        str(count),
    ]
    return bench.start(command, env=env, log=record / "log")
