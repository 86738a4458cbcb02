"""Data workers die, are interrupted and left behind: same batches, no orphan."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.pipeline.conftest import Home, dies_at_17, dies_once_at_17, hangs, noisy

from penstock.base.errors import Unavailable
from penstock.data import Loader
from penstock.jobs import forks

pytestmark = pytest.mark.faults


def until(holds: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)
    return found


def children(pid: int) -> list[int]:
    """All live descendants."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *children(int(child))]
    return found


def pids(loader: Loader) -> list[int]:
    """Of its workers, once they have said hello."""
    pool = loader._kitchen._pool
    assert pool is not None
    return [pid for worker in pool._workers if (pid := worker.pid)]


def same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a["id"], b["id"]) and torch.equal(a["noise"], b["noise"])
        for a, b in zip(one, other, strict=True)
    )


def test_a_killed_worker_is_replaced_and_the_batches_are_the_same(home: Home) -> None:
    whole = list(home.loader(map=noisy, epochs=20, threads=0))
    loader = home.loader(map=noisy, epochs=20, workers=2, ahead_bytes=1000)
    batches = []
    killed = set()
    for step, batch in enumerate(loader):
        batches.append(batch)
        if step % 40 == 20:
            victim = pids(loader)[step % 2]
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
    assert same(batches, whole)
    assert len(killed) == 5
    loader.close()


def test_a_worker_that_dies_in_the_middle_of_a_batch_is_replaced(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forks.end()  # the next image sees the variable
    mark = tmp_path / "died"
    monkeypatch.setenv("PENSTOCK_TEST_MARK", str(mark))
    loader = home.loader(map=dies_once_at_17, workers=2)
    assert same(list(loader), list(home.loader(map=noisy)))
    assert mark.exists()
    loader.close()


def test_a_batch_that_kills_its_workers_is_one_error_and_not_a_loop(home: Home) -> None:
    loader = home.loader(map=dies_at_17, workers=1, shuffle=False)
    with pytest.raises(Unavailable, match="3 data workers died over the batch of step 2"):
        list(loader)
    loader.close()


def test_a_killed_image_is_started_again(home: Home) -> None:
    loader = home.loader(map=noisy, workers=2, epochs=3)
    batches = list(islice(loader, 4))
    image = forks._own
    assert image is not None
    os.kill(image._process.pid, signal.SIGKILL)
    batches += loader
    assert same(batches, list(home.loader(map=noisy, epochs=3)))
    loader.close()


def test_closing_ends_the_workers_also_busy_ones(home: Home) -> None:
    loader = home.loader(map=hangs, workers=2)
    feeder = loader._kitchen.feeder(0, None)
    feeder._ask()  # type: ignore[attr-defined]
    pool = loader._kitchen._pool
    assert pool is not None
    busy = [until(lambda w=worker: w.read() or w.pid) for worker in pool._workers]
    loader.close()
    until(lambda: not any(Path(f"/proc/{pid}").exists() and alive(pid) for pid in busy))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


SCRIPT = """
    import sys, time
    from pathlib import Path
    import numpy as np
    from penstock.base.layout import Layout
    from penstock.blobs import open_blobs
    from penstock.data import Loader, read_manifest

    def slow(sample):
        if sample["id"] >= 24:
            time.sleep(3600)
        return sample

    if __name__ == "__main__":
        folder, digest = sys.argv[1:]
        blobs = open_blobs(f"file://{folder}/blobs")
        loader = Loader(
            blobs, Layout(Path(folder)), read_manifest(blobs, digest), "all",
            batch_size=6, shuffle=False, workers=2, map=slow,
        )
        try:
            for batch in loader:
                print(batch["id"].tolist(), flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """


@pytest.fixture
def script(home: Home, tmp_path: Path) -> subprocess.Popen[str]:
    """A script whose workers hang in its map after a few batches."""
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    running = subprocess.Popen(
        [sys.executable, "script.py", str(home.layout.root), home.data.digest],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    for _ in range(4):
        assert running.stdout.readline().startswith("[")
    return running


def test_ctrl_c_while_a_worker_hangs_ends_cleanly(script: subprocess.Popen[str]) -> None:
    below = until(lambda: children(script.pid))
    assert len(below) == 3  # the image and two workers
    script.send_signal(signal.SIGINT)
    out, _ = script.communicate(timeout=30)
    assert (script.returncode, out) == (0, "interrupted\n")
    until(lambda: not any(alive(pid) for pid in below))


def test_no_worker_outlives_a_killed_script(script: subprocess.Popen[str]) -> None:
    below = until(lambda: children(script.pid))
    script.kill()
    script.communicate()
    until(lambda: not any(alive(pid) for pid in below))
