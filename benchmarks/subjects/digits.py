"""What all subjects train, and the one instrument that times them. Knows nothing of Penstock.

Shapes: B samples. The data is a file that the benchmark wrote, named by the environment variable
BENCH_DIGITS, so that no subject pays for importing scikit-learn.
"""

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

LR = 3e-3
BATCH = 60  # global
TRAIN_ROWS = 1257
STEP = float(os.environ.get("BENCH_STEP", "0"))  # seconds that a step computes beside its own
EVERY = int(os.environ.get("BENCH_EVERY", "20"))  # steps from one checkpoint to the next


def compute(seconds: float = STEP) -> None:
    """As a host computes while an accelerator does: it waits, and its cores are free."""
    time.sleep(seconds)


class Net(nn.Module):
    """image  float32 [B, 8, 8]  0..1  ->  logits  float32 [B, 10]"""

    def __init__(self) -> None:
        super().__init__()
        self.convolve = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classify = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(1024, 10))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classify(self.convolve(image.unsqueeze(1)))


def read_digits() -> dict[str, np.ndarray]:
    """id  str [1797]; image  float32 [1797, 8, 8]  0..1; label  int64 [1797]"""
    with np.load(os.environ["BENCH_DIGITS"]) as found:
        return {name: found[name] for name in ("id", "image", "label")}


class Record:
    """A line for each step that this rank completed, as soon as it did: "step pid time".

    One file per rank, appended by one write each: what was written survives SIGKILL.
    Times are seconds of time.time(), the clock that the killer uses.
    """

    def __init__(self, folder: str, rank: int) -> None:
        self._folder = Path(folder)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._file = os.open(self._folder / f"rank-{rank}", flags, 0o644)

    def completed(self, step: int) -> None:
        os.write(self._file, f"{step} {os.getpid()} {time.time():.6f}\n".encode())

    def weights(self, model: nn.Module) -> None:
        """The end: a digest of the final weights, bit for bit."""
        digest = hashlib.sha256()
        for name, value in sorted(model.state_dict().items()):
            digest.update(name.encode() + value.numpy().tobytes())
        (self._folder / "weights").write_text(digest.hexdigest())
