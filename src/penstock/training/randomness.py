"""Random states of Python, NumPy and torch: seeded per rank, captured, put back."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_all(seed: int, *stream: int | str) -> None:
    """Seed all three generators from a seed and the name of a stream (for example a rank)."""
    text = "/".join(str(part) for part in (seed, *stream))
    value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value % 2**63)


def capture() -> dict[str, Any]:
    """All random states of this process, devices included. A tree that checkpoints can hold."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def put_back(states: dict[str, Any]) -> None:
    """The opposite of `capture`."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(states["numpy"]))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        found = states["cuda"]
        if isinstance(found, torch.Tensor):  # of an earlier version: of the rank's own device
            torch.cuda.set_rng_state(found)
        else:  # where there are fewer devices now, of those that there are
            torch.cuda.set_rng_state_all(list(found)[: torch.cuda.device_count()])


@contextmanager
def untouched() -> Iterator[None]:
    """Whatever random numbers are drawn inside, afterwards all is as before."""
    states = capture()
    try:
        yield
    finally:
        put_back(states)
