"""What signals mean to launched ranks, and how SLURM is asked to start the job again.

SIGTERM comes from torchrun when it is stopped itself, and from SLURM before it takes a job's
machines away; SIGUSR1 is what `sbatch --signal=USR1@120` sends. Either on any rank: all save after
the same step, and leave.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_PATIENCE = 30.0  # seconds


@contextmanager
def heard(leave: Callable[[str], None]) -> Iterator[None]:
    """Inside, the signals call `leave` with their names. Elsewhere than in the main thread, which
    alone may have handlers, they stay as they were."""

    def hear(number: int, frame: FrameType | None) -> None:
        leave(signal.Signals(number).name)

    before: dict[signal.Signals, Any] = {}
    try:
        for each in _SIGNALS:
            before[each] = signal.signal(each, hear)
    except ValueError:
        before.clear()
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def under_slurm() -> bool:
    return "SLURM_JOB_ID" in os.environ


def requeue(wanted: bool) -> str:
    """Ask SLURM for this job once more. Returns what became of it, for people."""
    job = os.environ["SLURM_JOB_ID"]
    if not wanted:
        return f"job {job} is not requeued: slurm_requeue is off"
    command = shutil.which("scontrol")
    if command is None:
        return f"job {job} is not requeued: there is no scontrol here; start it again: sbatch"
    try:
        done = subprocess.run(
            [command, "requeue", job], capture_output=True, text=True, timeout=_PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"job {job} is not requeued: {error}"
    if done.returncode != 0:
        return f"job {job} is not requeued: {done.stderr.strip() or done.stdout.strip()}"
    return f"job {job} is requeued"
