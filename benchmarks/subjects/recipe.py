"""What all subjects train, and the one instrument that all are measured with.

A tiny CNN on images made from the step's number: no input pipeline is part of what is measured.
A step takes about 10 ms: a few of computing, the rest slept.
"""

import os
import time

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

BATCH = 32  # rows of a rank
PAUSE = 0.006  # seconds of every step
LR = 3e-3
EVERY = 20  # steps between checkpoints


class Net(nn.Module):
    """image  float32 [B, 1, 8, 8]  ->  logits  float32 [B, 10]"""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(32 * 16, 10),
        )  # fmt: skip

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


def loss_of(model: nn.Module, step: int, rank: int) -> torch.Tensor:
    """The loss of one rank's batch of one step."""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    image = torch.rand(BATCH, 1, 8, 8, generator=generator)
    label = torch.randint(0, 10, (BATCH,), generator=generator)
    time.sleep(PAUSE)
    return F.cross_entropy(model(image), label)


class Instrument:
    """Appends a line "TIME STEP RANK PID" per completed step; one write, so no line is torn."""

    def __init__(self, path: str, rank: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._rank = rank

    def completed(self, step: int) -> None:
        os.write(self._file, f"{time.time():.6f} {step} {self._rank} {os.getpid()}\n".encode())
