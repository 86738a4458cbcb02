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


def _url(engine: str, request: pytest.FixtureRequest, folder: Path) -> str:
    if engine == "postgres":
        fresh: str = request.getfixturevalue("postgres").fresh()
        return fresh
    return {"memory": "memory://", "sqlite": f"sqlite:///{folder}/meta.db"}[engine]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def meta(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Meta]:
    """Every engine in turn; a new engine joins the contract by one line here."""
    store = open_meta(_url(request.param, request, tmp_path), clock=clock)
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "postgres"])
def shared_meta(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> Iterator[Meta]:
    """Engines that several processes may open, and in which readers and writers run side by
    side."""
    store = open_meta(_url(request.param, request, tmp_path), clock=clock)
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
