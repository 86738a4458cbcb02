"""The training as a Penstock user writes it: python with_penstock.py RECORD STEPS RANKS [SECOND].

RANKS is a number, or a range as 1-2. With a second record the script trains a second time, to time
`ps.train` in a warm script.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from digits import BATCH, EVERY, LR, STEP, Net, Record, compute, read_digits

import penstock as ps


@dataclass
class Config:
    record: str
    steps: int
    step_seconds: float = STEP


def fit(run: ps.Run, config: Config) -> None:
    model = run.distribute(Net())
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    train = run.data("digits:train", batch_size=BATCH, epochs=10_000)
    run.track(model=model, optimizer=optimizer, train=train)
    record = Record(config.record, run.rank)
    for batch in run.steps(train):
        loss = F.cross_entropy(model(batch["image"]), batch["label"])
        run.backward(loss)
        run.step(optimizer)
        compute(config.step_seconds)
        record.completed(run.global_step + 1)
        if run.global_step + 1 == config.steps:
            break
    if run.rank == 0:
        record.weights(getattr(model, "module", model))


def main() -> None:
    record, steps, ranks, *second = sys.argv[1:]
    # The threads are said: else a run keeps those of the last of its name, which had other ranks.
    low, _, high = ranks.partition("-")
    workers = (int(low), int(high)) if high else int(low)
    how: dict[str, Any] = {"workers": workers, "checkpoint_every": EVERY, "threads": 1}
    ps.prepare("digits", read_digits, key="id")
    ps.train(fit, Config(record, int(steps)), name="first", **how)
    if second:
        (Path(second[0]) / "began").write_text(repr(time.time()))
        ps.train(fit, Config(second[0], int(steps)), name="second", **how)


if __name__ == "__main__":
    ps.main(main)
