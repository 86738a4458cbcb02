"""A folder of segments, and ranks of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.signals import Emitter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "signals"


@pytest.fixture
def emitter(folder: Path) -> Iterator[Callable[..., Emitter]]:
    """`emitter(rank=0, generation=1, segment_bytes=…)`; all are closed in the end."""
    made: list[Emitter] = []

    def make(rank: int = 0, generation: int = 1, **options: int) -> Emitter:
        made.append(Emitter(folder, "run-1", rank, generation, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
