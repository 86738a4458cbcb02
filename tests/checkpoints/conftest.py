"""A whole way for a state: planned, copied, persisted, assembled, committed to a list."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import penstock.checkpoints as ck
from penstock.blobs import Blobs, open_blobs
from penstock.records import Checkpoint


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return open_blobs(f"file://{tmp_path}/blobs")


@pytest.fixture
def memory() -> Blobs:
    return open_blobs("memory://")


@pytest.fixture(scope="session")
def fill() -> Callable[[ck.Plan], memoryview]:
    """Copy a plan into a buffer that holds old bytes, as memory that is used again does."""

    def run(plan: ck.Plan) -> memoryview:
        buffer = memoryview(bytearray(b"\xee" * plan.nbytes))
        plan.copy_into(buffer)
        return buffer

    return run


@pytest.fixture(scope="session")
def save(fill: Callable[[ck.Plan], memoryview]) -> Callable[..., Checkpoint]:
    """`save(blobs, shared, owns, step=…)`: one rank for each of `owns`, as a gang would save."""

    def run(
        blobs: Blobs, shared: Any, owns: list[Any], step: int = 1, generation: int = 1, **extra: Any
    ) -> Checkpoint:
        parts = []
        for rank, own in enumerate(owns):
            plan = ck.plan(shared, own, rank, len(owns))
            parts.append(ck.persist(fill(plan), plan.index, blobs))
        data, _ = ck.assemble("run-a", step, generation, len(owns), parts, extra)
        size = sum(part["nbytes"] for part in parts)
        return Checkpoint("run-a", step, blobs.put(data), generation, 0.0, size)

    return run


@pytest.fixture(scope="session")
def same() -> Callable[[Any, Any], bool]:
    """Equal to the last bit, and of the same types."""
    return _same


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return (a.dtype, a.shape, _bytes(a)) == (b.dtype, b.shape, _bytes(b))
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, np.generic):
        return (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, dict):
        keys = len(a) == len(b) and all(map(_same, a, b))
        return keys and all(map(_same, a.values(), b.values()))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _bytes(tensor: torch.Tensor) -> bytes:
    flat = tensor.clone(memory_format=torch.contiguous_format).reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


@pytest.fixture
def trained() -> Callable[[int], dict[str, Any]]:
    """`trained(step)`: model and AdamW of a small network, 70 thousand parameters."""

    def run(step: int) -> dict[str, Any]:
        torch.manual_seed(step)
        model = torch.nn.Sequential(
            torch.nn.Linear(64, 256),
            torch.nn.ReLU(),
            torch.nn.Linear(256, 200),
            torch.nn.Linear(200, 10),
        )
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.randn(8, 64)).square().mean().backward()
        optimizer.step()
        return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}

    return run
