"""The episodes that all subjects of `loader_windows` read, and how they are measured."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

STATE, FORCE, PICTURE = 14, 6, (32, 32, 3)
STEPS, FRAMES, BATCH = 16, 2, 64


def options() -> tuple[Path, dict[str, Any]]:
    """The folder to keep data in, and what the benchmark says."""
    return Path(sys.argv[1]), json.loads(sys.argv[2])


def episode(number: int, rows: int) -> dict[str, np.ndarray]:
    """state, action [rows, 14] at 50 Hz; force [2 rows, 6] at 100 Hz; camera [rows / 5, …] 10."""
    draw = np.random.default_rng(number)
    return {
        "state": draw.normal(size=(rows, STATE)).astype(np.float32),
        "action": draw.normal(size=(rows, STATE)).astype(np.float32),
        "force": draw.normal(size=(2 * rows, FORCE)).astype(np.float32),
        "camera": draw.integers(0, 256, (rows // 5, *PICTURE), dtype=np.uint8),
    }


def measure(batches: Iterable[dict[str, Any]], seconds: float) -> None:
    """Print how many samples came in some seconds, after a few batches to warm up."""
    import torch

    iterator = iter(batches)
    for _ in range(5):
        next(iterator)
    began, samples, size = time.perf_counter(), 0, 0
    while (took := time.perf_counter() - began) < seconds:
        batch = next(iterator)
        tensors = [each for each in batch.values() if isinstance(each, torch.Tensor)]
        samples += len(tensors[0])
        size += sum(each.numel() * each.element_size() for each in tensors)
    print(json.dumps({"samples": samples, "bytes": size, "seconds": took}))
