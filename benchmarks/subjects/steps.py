"""Reads what the instrument of the subjects wrote (subjects/recipe.py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """at  seconds since the epoch, when this rank had completed this step (from 1)"""

    at: float
    step: int
    rank: int
    pid: int


def read(file: Path) -> list[Step]:
    """In the order of writing; empty while there is no file. A last line being written is left."""
    if not file.exists():
        return []
    lines = file.read_text().split("\n")[:-1]
    fields = [line.split() for line in lines]
    return [Step(float(at), int(step), int(rank), int(pid)) for at, step, rank, pid in fields]


def wait_for(
    file: Path, holds: Callable[[list[Step]], bool], seconds: float
) -> list[Step] | None:
    """The steps as soon as `holds` is true of them; None when it never is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        steps = read(file)
        if holds(steps):
            return steps
        time.sleep(0.01)
    return None
