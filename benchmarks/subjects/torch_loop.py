"""The same training for all who have no Penstock: the loop, its data, what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from digits import BATCH, EVERY, LR, STEP, TRAIN_ROWS, Net, Record, compute, read_digits

State = dict[str, Any]


def train(
    folder: str,
    steps: int,
    rank: int,
    world: int,
    wrap: Callable[[torch.nn.Module], torch.nn.Module],
    state: State | None,
    save: Callable[[State], None],
    step_seconds: float = STEP,
    every: int = EVERY,
) -> None:
    """wrap   the model for several ranks
    state  of the checkpoint to begin with, as `save` got it on some rank
    save   called by every rank, every EVERY steps
    """
    net = Net()
    model = wrap(net)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    done = 0
    if state is not None:
        net.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    found = read_digits()
    images = torch.from_numpy(found["image"][:TRAIN_ROWS])
    labels = torch.from_numpy(found["label"][:TRAIN_ROWS])
    record = Record(folder, rank)
    part = BATCH // world
    per_epoch = TRAIN_ROWS // BATCH
    for step in range(done, steps):
        epoch, batch = divmod(step, per_epoch)
        order = torch.randperm(TRAIN_ROWS, generator=torch.Generator().manual_seed(epoch))
        begin = batch * BATCH + rank * part
        rows = order[begin : begin + part]
        F.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        compute(step_seconds)
        record.completed(step + 1)
        if (step + 1) % every == 0:
            kept = {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
            save({**kept, "step": step + 1})
    if rank == 0:
        record.weights(net)
