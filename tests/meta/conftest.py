"""Meta stores to test, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
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
def disk_size() -> str:
    return "1m"
