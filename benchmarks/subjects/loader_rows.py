"""The rows that all subjects of `loader` read, and how they are measured.

tokens    int32 [1025]                 4,100 bytes
blobs     bytes, 100,000 of them
features  float32 [62], int64 label    256 bytes
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

BYTES = {"tokens": 4100, "blobs": 100_000, "features": 256}
BATCH = {"tokens": 64, "blobs": 32, "features": 256}
_BLOCK = 1 << 24  # bytes made at once


def options() -> tuple[Path, dict[str, Any]]:
    """The folder to keep data in, and what the benchmark says: kind, rows, workers, seconds."""
    return Path(sys.argv[1]), json.loads(sys.argv[2])


def blocks(kind: str, rows: int) -> Iterator[dict[str, np.ndarray]]:
    """All rows, some at a time: x (and y, of features)."""
    draw = np.random.default_rng(7)
    step = max(1, _BLOCK // BYTES[kind])
    for start in range(0, rows, step):
        n = min(step, rows - start)
        if kind == "tokens":
            yield {"x": draw.integers(0, 50_000, (n, 1025), dtype=np.int32)}
        elif kind == "blobs":
            yield {"x": np.frombuffer(draw.bytes(n * 100_000), np.uint8).reshape(n, 100_000)}
        else:
            x = draw.random((n, 62), dtype=np.float32)
            yield {"x": x, "y": np.arange(start, start + n) % 10}


def samples(kind: str, rows: int) -> Iterator[dict[str, Any]]:
    """The rows one by one; a blob as bytes."""
    for block in blocks(kind, rows):
        for i in range(len(block["x"])):
            x = block["x"][i]
            sample: dict[str, Any] = {"x": x.tobytes() if kind == "blobs" else x}
            if "y" in block:
                sample["y"] = int(block["y"][i])
            yield sample


def memmaps(folder: Path, kind: str, rows: int) -> dict[str, np.ndarray]:
    """The rows in .npy files, mapped; written when they are not there yet."""
    if not (folder / "written").exists():
        first = next(blocks(kind, 1))
        maps = {
            name: np.lib.format.open_memmap(
                folder / f"{name}.npy", "w+", each.dtype, (rows, *each.shape[1:])
            )
            for name, each in first.items()
        }
        at = 0
        for block in blocks(kind, rows):
            for name, each in block.items():
                maps[name][at : at + len(each)] = each
            at += len(block["x"])
        for each in maps.values():
            each.flush()
        (folder / "written").touch()
    return {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}


def forever(batches: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from batches


def measure(batches: Iterable[Any], told: dict[str, Any]) -> None:
    """Print how many samples came in some seconds, after some to warm up."""
    iterator = iter(batches)
    until = time.perf_counter() + told["warm"]
    next(iterator)
    while time.perf_counter() < until:
        next(iterator)
    began, count = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < told["seconds"]:
        batch = next(iterator)
        values = batch.values() if isinstance(batch, dict) else batch
        count += len(batch) if hasattr(batch, "shape") else len(next(iter(values)))
    print(json.dumps({"samples": count, "seconds": took}))
