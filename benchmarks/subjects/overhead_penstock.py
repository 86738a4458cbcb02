"""overhead_penstock.py FOLDER STEPS [PROFILE]: with Penstock, everything that it does in a step
switched on; a profile of rank 0 goes to PROFILE."""

import cProfile
import sys
from dataclasses import dataclass

from overhead import CLIP, WARM, Clock, batch, model, optimizer
from torch import nn

import penstock as ps


@dataclass
class Config:
    folder: str
    steps: int
    profile: str = ""


def fit(run: ps.Run, config: Config) -> None:
    net = run.distribute(model())
    update = optimizer(net)
    run.track(model=net, optimizer=update)
    x, y = batch()
    clock = Clock(config.folder, run.rank, config.steps)
    profile = cProfile.Profile() if config.profile and run.rank == 0 else None
    for _ in run.steps(WARM + config.steps, spikes=100.0):
        if profile and run.global_step == WARM:
            profile.enable()
        loss = nn.functional.mse_loss(net(x), y)
        run.backward(loss)
        run.step(update, clip=CLIP)
        run.log({"loss": loss})
        run.every(1000)
        clock.tick()
    if profile:
        profile.disable()
        profile.dump_stats(config.profile)


def main() -> None:
    folder, steps, *profile = sys.argv[1:]
    ps.train(fit, Config(folder, int(steps), *profile), name="overhead", workers=2, threads=1)


if __name__ == "__main__":
    ps.main(main)
