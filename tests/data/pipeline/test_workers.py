"""Data workers die, are interrupted and left behind: same batches, no orphan."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.data.pipeline.conftest import ROWS, Home, dies_at_17, dies_once_at_17, hangs, noisy

from penstock.base.errors import Unavailable
from penstock.data import Loader, ShardSource
from penstock.data.pipeline.collate import PADDED
from penstock.data.pipeline.opening import Shards
from penstock.data.pipeline.pool import Pool
from penstock.data.pipeline.work import Steps
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


# the law


def is_odd(sample: dict[str, Any]) -> bool:
    return bool(sample["odd"])


ORDERS: dict[str, dict[str, Any]] = {
    "as they lie": {"shuffle": False},
    "whole": {"shuffle": True},
    "in windows": {"shuffle": "window", "window_rows": 20},
    "padded": {"pad_last": True},
    "filtered": {"filter": is_odd},
}


@st.composite
def laws(draw: Any) -> tuple[str, int, int, int]:
    """(order, B, world size before the stop, world size after it), of all that is allowed."""
    name = draw(st.sampled_from(sorted(ORDERS)))
    before = draw(st.integers(1, 16))
    if name == "as they lie":
        return name, draw(st.integers(1, 20)), before, draw(st.integers(1, 16))
    batch = before * draw(st.integers(1, (20 if name == "filtered" else 40) // before))
    fitting = [count for count in range(1, 17) if batch % count == 0]
    return name, batch, before, draw(st.sampled_from(fitting))


class Ranks:
    """The loaders of a world; one rank's batches are made by workers, which all examples share."""

    def __init__(self, source: ShardSource, index: Path, pools: dict[int, Pool]) -> None:
        self._source, self._index, self._pools = source, index, pools

    def of(self, order: str, batch: int, count: int, workers: int, rank: int) -> list[Loader]:
        options: dict[str, Any] = {"seed": SEED, "key": "id", "epochs": 2, "map": noisy}
        options |= {"batch_size": batch, "world_size": count, "index": self._index}
        options |= ORDERS[order]
        made = []
        for number in range(count):
            how: dict[str, Any] = {"threads": 0}
            if workers and number == rank % count:
                how = {"workers": workers}
            made.append(Loader.over(self._source, rank=number, **how, **options))
            made[-1]._kitchen._pool = self._pools.get(how.get("workers", 0))
        return made


SEED = 7


@pytest.fixture(scope="module")
def ranks(home: Home) -> Iterator[Ranks]:
    opening = Shards(home.blobs.url, str(home.layout.root), home.data.digest, "all")
    steps = Steps(map=noisy, seed=SEED, key="id")
    pools = {count: Pool(count, opening, steps) for count in range(1, 5)}
    source = ShardSource(home.blobs, home.layout, home.data, "all")
    yield Ranks(source, home.layout.samples, pools)
    for pool in pools.values():
        pool.close()
    source.close()


def together(loaders: list[Loader], steps: int | None) -> list[dict[str, Any]]:
    """Global batches: the parts of all ranks, in their order."""
    parts = [list(islice(loader, steps)) for loader in loaders]
    return [
        {
            name: torch.cat([part[name] for part in step])
            for name in step[0]
            if isinstance(step[0][name], torch.Tensor)
        }
        for step in zip(*parts, strict=True)
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(law=laws(), workers=st.tuples(st.integers(0, 4), st.integers(0, 4)), data=st.data())
def test_every_sample_once_per_epoch_and_the_same_batches_at_any_world_size_workers_and_stop(
    ranks: Ranks, law: tuple[str, int, int, int], workers: tuple[int, int], data: Any
) -> None:
    order, batch, before, after = law
    (alone,) = ranks.of(order, batch, 1, 0, 0)
    whole = together([alone], None)
    for epoch in (whole[: alone.steps_per_epoch], whole[alone.steps_per_epoch :]):
        given_out = list(chain.from_iterable(real(each) for each in epoch))
        rows = set(range(1, ROWS, 2) if order == "filtered" else range(ROWS))
        left_out = 0 if order in ("as they lie", "padded") else len(rows) % batch
        assert len(given_out) == len(rows) - left_out
        assert len(set(given_out)) == len(given_out) and set(given_out) <= rows

    stop = data.draw(st.integers(0, len(whole)), "stop")
    rank = data.draw(st.integers(0, 15), "the rank that has workers")
    first = ranks.of(order, batch, before, workers[0], rank)
    head = together(first, stop)
    states = [loader.state() for loader in first]
    assert all(state == states[0] and state["next"] == stop for state in states)
    second = ranks.of(order, batch, after, workers[1], rank)
    for loader in second:
        loader.load_state(states[0])
    assert same(head + together(second, None), whole)


def real(batch: dict[str, Any]) -> list[int]:
    """Its samples without those that only fill it up."""
    ids: list[int] = batch["id"].tolist()
    padded = batch[PADDED].tolist() if PADDED in batch else [False] * len(ids)
    return [i for i, padding in zip(ids, padded, strict=True) if not padding]


# deaths


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
def script(home: Home, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A script whose workers hang in its map after a few batches. Its workers end with it."""
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
    yield running
    running.kill()
    running.wait()
    running.stdout.close()


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
