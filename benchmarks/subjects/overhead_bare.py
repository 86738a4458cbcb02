"""torchrun ... overhead_bare.py FOLDER STEPS: nothing but torch."""

import sys

import torch.distributed as dist
from overhead import CLIP, WARM, Clock, batch, model, optimizer
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    dist.init_process_group("gloo")
    folder, steps = sys.argv[1], int(sys.argv[2])
    net = DistributedDataParallel(model())
    update = optimizer(net)
    x, y = batch()
    clock = Clock(folder, dist.get_rank(), steps)
    for _ in range(WARM + steps):
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        update.step()
        update.zero_grad(set_to_none=True)
        clock.tick()
    dist.destroy_process_group()


main()
