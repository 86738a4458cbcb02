"""Blob stores to test, and deaths at a chosen line."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.blobs import Blobs, open_blobs


@pytest.fixture(params=["memory", "local"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """Every engine in turn; a new engine joins the contract by one line here."""
    return open_blobs({"memory": "memory://", "local": f"file://{tmp_path}/blobs"}[request.param])


@pytest.fixture
def local(tmp_path: Path) -> Blobs:
    return open_blobs(f"file://{tmp_path}/blobs")


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("PENSTOCK_CHAOS_SEED", random.randrange(1 << 30)))
    print(f"PENSTOCK_CHAOS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def die_at_line() -> Callable[[str, int, Callable[[], object]], int]:
    """`die_at_line(part, n, work)`: SIGKILL a forked child before the n-th line in files whose
    path holds `part`; returns the child's wait status (0: it got through)."""

    def run(part: str, n: int, work: Callable[[], object]) -> int:
        child = os.fork()
        if child == 0:
            _trace(part, n)
            try:
                work()
                sys.settrace(None)
                os._exit(0)
            finally:
                os._exit(70)
        return os.waitpid(child, 0)[1]

    return run


def _trace(part: str, n: int) -> None:
    left = n

    def on_line(frame: object, event: str, _argument: object) -> object:
        nonlocal left
        if event == "line":
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def on_call(frame: object, _event: str, _argument: object) -> object:
        return on_line if part in frame.f_code.co_filename else None  # type: ignore[attr-defined]

    sys.settrace(on_call)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB of its own."""
    if os.getuid() != 0:
        pytest.skip("needs root to mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
