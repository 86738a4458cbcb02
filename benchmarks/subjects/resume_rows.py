"""The rows that all subjects of `loader_resume` read, and how they are measured."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH, WIDTH = 64, 256


def options() -> tuple[Path, dict[str, Any]]:
    """The folder to keep data in, and what the benchmark says."""
    return Path(sys.argv[1]), json.loads(sys.argv[2])


def columns(rows: int) -> dict[str, np.ndarray]:
    """id int64, x int32 [256]: a kilobyte a row."""
    draw = np.random.default_rng(7)
    return {"id": np.arange(rows), "x": draw.integers(0, 50_000, (rows, WIDTH), dtype=np.int32)}


def memmap(folder: Path, rows: int) -> np.ndarray:
    """x in a .npy file, mapped; written when it is not there yet."""
    path = folder / "x.npy"
    if not path.exists():
        np.save(path, columns(rows)["x"])
    return np.load(path, mmap_mode="r")


def measure(first: Callable[[float], Any], told: dict[str, Any]) -> None:
    """Print the milliseconds to the first batch at 10 % and at 90 % of an epoch.

    first  share of the epoch -> what must be kept until the clock has stopped
    One call before warms up imports and page cache.
    """
    first(0.5)
    found = {}
    for share in (0.1, 0.9, 0.1, 0.9, 0.1, 0.9)[: 2 * told["times"]]:
        began = time.perf_counter()
        kept = first(share)
        found.setdefault(f"{share:.0%}", []).append(1000 * (time.perf_counter() - began))
        del kept
    print(json.dumps(found))
