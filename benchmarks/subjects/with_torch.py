"""The same training with nothing but torch, as torchrun's own example does it:

torchrun ... with_torch.py RECORD STEPS     DDP; resumes from its last checkpoint
python with_torch.py RECORD STEPS           one process, no DDP: the bare loop
"""

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from digits import BATCH, LR, TRAIN_ROWS, Net, Record, read_digits
from torch.nn.parallel import DistributedDataParallel

EVERY = 20  # steps from one checkpoint to the next
PAUSE = 0.01


def main() -> None:
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.manual_seed(0)
    net = Net()
    model: torch.nn.Module = net
    if world > 1:
        dist.init_process_group("gloo")
        model = DistributedDataParallel(net)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    checkpoint = folder / "checkpoint.pt"
    done = 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        net.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    found = read_digits()
    images = torch.from_numpy(found["image"][:TRAIN_ROWS])
    labels = torch.from_numpy(found["label"][:TRAIN_ROWS])
    record = Record(str(folder), rank)
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
        record.completed(step + 1)
        time.sleep(PAUSE)
        if rank == 0 and (step + 1) % EVERY == 0:
            state = {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step + 1}, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
    if rank == 0:
        record.weights(net)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
