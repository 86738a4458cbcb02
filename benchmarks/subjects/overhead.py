"""What `step_overhead` trains with every subject, and the one clock: processor time of a rank.

The step is as small as a step can be (a model of 340 parameters), so that what a trainer adds to it
is seen. Ranks have one thread for operations; threads of gloo, autograd and of the trainer count.
"""

import json
import time
from pathlib import Path

import torch
from torch import nn

WARM = 300  # steps before the clock starts: imports on first use, DDP's second layout of buckets
CLIP = 1.0


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def optimizer(of: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(of.parameters(), lr=1e-3)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """x  float32 [8, 16]; y  float32 [8, 4]"""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 16, generator=generator), torch.randn(8, 4, generator=generator)


class Clock:
    """`tick` after every step. Writes what a step took once all are done."""

    def __init__(self, folder: str, rank: int, steps: int) -> None:
        self._path = Path(folder) / f"rank-{rank}.json"
        self._last = WARM + steps
        self._done = 0
        self._steps = steps

    def tick(self) -> None:
        self._done += 1
        if self._done == WARM:
            self._busy, self._began = time.process_time(), time.perf_counter()
        elif self._done == self._last:
            busy, took = time.process_time() - self._busy, time.perf_counter() - self._began
            found = {"steps": self._steps, "busy": busy, "wall": took}
            self._path.write_text(json.dumps(found))
