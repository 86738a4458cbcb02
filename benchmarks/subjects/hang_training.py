"""hang_training.py FOLDER KIND STEPS: a training of two ranks whose rank 1 hangs in step 30, once.

KIND  loop, loader, lock: it hangs by itself; frozen: it waits to be stopped from outside; none: it
      never hangs, but its steps are as uneven as log-normal times are, with slow evaluations and a
      checkpoint every 20 steps.
FOLDER/hung is written right before: "time pid file:line".
"""

import random
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import penstock as ps

AT = 30  # step
STEP = 0.05  # seconds


@dataclass
class Config:
    folder: str
    kind: str
    steps: int


class Rows(torch.utils.data.Dataset):
    """x  float32 [4]; the row that rank 1 asks for in step `AT` waits for ever, where it is to."""

    def __init__(self, config: Config, rank: int) -> None:
        self.config, self.rank, self.given = config, rank, 0

    def __len__(self) -> int:
        return 2 * self.config.steps

    def __getitem__(self, number: int) -> torch.Tensor:
        self.given += 1
        if self.config.kind == "loader" and self.rank == 1 and self.given == AT:
            tell(self.config, 1)
            threading.Event().wait()
        return torch.full((4,), float(number))


def tell(config: Config, below: int) -> None:
    """below  how many lines below its caller's the one is in which it will hang"""
    import os

    line = sys._getframe(1).f_lineno + below
    text = f"{time.time()} {os.getpid()} hang_training.py:{line}"
    draft = Path(config.folder) / "draft"
    draft.write_text(text)
    draft.rename(Path(config.folder) / "hung")


def hang(config: Config) -> None:
    if config.kind == "loop":
        tell(config, 1)
        all(True for _ in iter(int, 1))  # for ever, and in one line, which is to be named
    if config.kind == "lock":
        lock = threading.Lock()
        lock.acquire()
        tell(config, 1)
        lock.acquire()
    if config.kind == "frozen":
        tell(config, 1)
        time.sleep(3600)


def fit(run: ps.Run, config: Config) -> None:
    model = run.distribute(nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    train = run.data(Rows(config, run.rank), batch_size=2, epochs=1, shuffle=False)
    run.track(model=model, optimizer=optimizer, train=train)
    draw = random.Random(run.rank)
    for batch in run.steps(train):
        loss = model(batch).mean()
        run.backward(loss)
        run.step(optimizer)
        if run.rank == 1 and run.global_step == AT and not (Path(config.folder) / "hung").exists():
            hang(config)
        uneven = draw.lognormvariate(0.0, 0.7) if config.kind == "none" else 1.0
        time.sleep(STEP * uneven)
        if config.kind == "none" and run.every(50):
            run.evaluate(slow, [batch])


def slow(batch: torch.Tensor) -> float:
    """An evaluation that takes longer than any step, and longer than `hang_seconds`."""
    time.sleep(5.0)
    return 0.0


def main() -> None:
    folder, kind, steps = sys.argv[1:]
    config = Config(folder, kind, int(steps))
    ps.train(fit, config, name="hang", workers=2, threads=1, checkpoint_every=20)


if __name__ == "__main__":
    ps.main(main)
