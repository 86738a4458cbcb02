"""torchrun ... overhead_fabric.py FOLDER STEPS: with Lightning Fabric; no logger is set up."""

import sys

from lightning_fabric import Fabric
from overhead import CLIP, WARM, Clock, batch, model, optimizer
from torch import nn


def main() -> None:
    folder, steps = sys.argv[1], int(sys.argv[2])
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    net = model()
    net, update = fabric.setup(net, optimizer(net))
    x, y = batch()
    clock = Clock(folder, fabric.global_rank, steps)
    for step in range(WARM + steps):
        loss = nn.functional.mse_loss(net(x), y)
        fabric.backward(loss)
        fabric.clip_gradients(net, update, max_norm=CLIP)
        update.step()
        update.zero_grad()
        fabric.log("loss", loss, step=step)
        clock.tick()
    if fabric.world_size != 2:
        raise SystemExit("not two ranks")


main()
