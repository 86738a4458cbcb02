"""torchrun ... overhead_accelerate.py FOLDER STEPS: with Accelerate; no tracker is set up."""

import sys

from accelerate import Accelerator
from overhead import CLIP, WARM, Clock, batch, model, optimizer
from torch import nn


def main() -> None:
    folder, steps = sys.argv[1], int(sys.argv[2])
    accelerator = Accelerator(cpu=True)
    net = model()
    net, update = accelerator.prepare(net, optimizer(net))
    x, y = batch()
    clock = Clock(folder, accelerator.process_index, steps)
    for step in range(WARM + steps):
        with accelerator.accumulate(net):
            loss = nn.functional.mse_loss(net(x), y)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(net.parameters(), CLIP)
            update.step()
            update.zero_grad()
        accelerator.log({"loss": loss.item()}, step=step)
        clock.tick()
    if accelerator.num_processes != 2:
        raise SystemExit("not two ranks")
    accelerator.end_training()


main()
