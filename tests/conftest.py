"""What any room's tests may ask for: a seed, deaths at a chosen line, a disk that is full soon."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("PENSTOCK_CHAOS_SEED", random.randrange(1 << 30)))
    print(f"PENSTOCK_CHAOS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def in_child() -> Callable[..., int]:
    """`in_child(work, die_at=n, part=…)`: fork, do the work, SIGKILL the child before the n-th
    line in files whose path holds `part` (None: never); returns the child's wait status: 0 when
    it got through, 70 << 8 when the work raised."""

    def run(work: Callable[[], object], die_at: int | None = None, part: str = "penstock/") -> int:
        child = os.fork()
        if child == 0:
            try:
                if die_at is not None:
                    _trace(part, die_at)
                work()
                sys.settrace(None)
                os._exit(0)
            finally:
                os._exit(70)
        return os.waitpid(child, 0)[1]

    return run


def _trace(part: str, n: int) -> None:
    left = n

    def on_line(_frame: object, event: str, _argument: object) -> object:
        nonlocal left
        if event == "line":
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def on_call(frame: Any, _event: str, _argument: object) -> object:
        return on_line if part in frame.f_code.co_filename else None

    sys.settrace(on_call)


@pytest.fixture
def disk_size() -> str:
    """Of `small_disk`; a room that needs more overrides it."""
    return "256k"


@pytest.fixture
def small_disk(tmp_path: Path, disk_size: str) -> Iterator[Path]:
    """A file system of its own, of 256 KiB unless the room says otherwise."""
    if os.getuid() != 0:
        assert "CI" not in os.environ, "CI must run as root, or this fault goes untested"
        pytest.skip("needs root to mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={disk_size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
