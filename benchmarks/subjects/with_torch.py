"""The same training with nothing but torch, as torchrun's own example does it:

torchrun ... with_torch.py RECORD STEPS     DDP; resumes from its last checkpoint
python with_torch.py RECORD STEPS           one process, no DDP: the bare loop
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch_loop import State, train


def main() -> None:
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.manual_seed(0)
    if world > 1:
        dist.init_process_group("gloo")
    checkpoint = folder / "checkpoint.pt"

    def wrap(net: torch.nn.Module) -> torch.nn.Module:
        return DistributedDataParallel(net) if world > 1 else net

    def save(state: State) -> None:
        if rank == 0:
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)

    state = torch.load(checkpoint) if checkpoint.exists() else None
    train(str(folder), steps, rank, world, wrap, state, save)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
