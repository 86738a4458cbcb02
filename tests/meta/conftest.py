"""Meta stores to test, with a clock that the test moves, and deaths at a chosen line."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.base.clock import ManualClock
from penstock.meta import Meta, open_meta
from penstock.records import Run


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite"])
def meta(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Meta]:
    """Every engine in turn; a new engine joins the contract by one line here."""
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/meta.db"}
    store = open_meta(urls[request.param], clock=clock)
    yield store
    store.close()


@pytest.fixture
def file_meta(tmp_path: Path, clock: ManualClock) -> Iterator[Meta]:
    store = open_meta(f"sqlite:///{tmp_path}/meta.db", clock=clock)
    yield store
    store.close()


@pytest.fixture
def run(meta: Meta) -> Run:
    """A run that is there already."""
    with meta.write() as writer:
        writer.add_run(Run("run-1", "base", "train", "running", {}))
        return writer.get_run("run-1")


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("PENSTOCK_CHAOS_SEED", random.randrange(1 << 30)))
    print(f"PENSTOCK_CHAOS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def in_child() -> Callable[..., int]:
    """`in_child(work, die_at=n)`: fork, do the work, SIGKILL before the n-th line of Penstock's
    meta room (None: never); returns the wait status, 70 << 8 when the work raised."""

    def run(work: Callable[[], object], die_at: int | None = None) -> int:
        child = os.fork()
        if child == 0:
            try:
                if die_at is not None:
                    _trace(die_at)
                work()
                sys.settrace(None)
                os._exit(0)
            finally:
                os._exit(70)
        return os.waitpid(child, 0)[1]

    return run


def _trace(n: int) -> None:
    left = n

    def on_line(_frame: object, event: str, _argument: object) -> object:
        nonlocal left
        if event == "line":
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_line

    def on_call(frame: object, _event: str, _argument: object) -> object:
        return on_line if "penstock/meta" in frame.f_code.co_filename else None  # type: ignore[attr-defined]

    sys.settrace(on_call)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own."""
    if os.getuid() != 0:
        pytest.skip("needs root to mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
