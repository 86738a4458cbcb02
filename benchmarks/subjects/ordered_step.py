"""A training with micro-batches in one of two reductions; the step times of rank 0, as JSON.

ordered_step.py HOME RESULT REDUCTION RANKS MICRO_BATCHES WIDTH STEPS
"""

import json
import os
import sys
import time
from pathlib import Path

import penstock as ps

_ROWS = 256  # of a global batch
_WARM_UP = 5  # steps


def fit(run: ps.Run, config: dict) -> None:
    import torch

    width = config["width"]
    layers = [torch.nn.Linear(width, width) for _ in range(4)]
    model = run.distribute(torch.nn.Sequential(*layers))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    run.track(model=model, optimizer=optimizer)
    rows = torch.randn(_ROWS // config["micro_batches"], width)
    times, began = [], time.perf_counter()
    micro = {"micro_batches": config["micro_batches"], "reduction": config["reduction"]}
    for _ in run.steps(config["steps"], **micro):
        run.backward(model(rows).square().mean())
        if run.step(optimizer):
            now = time.perf_counter()
            times.append(now - began)
            began = now
    if run.rank == 0:
        parameters = sum(p.numel() for p in model.parameters())
        told = {"times": times[_WARM_UP:], "parameters": parameters}
        Path(config["result"]).write_text(json.dumps(told))


def main() -> None:
    home, result, reduction, ranks, micro_batches, width, steps = sys.argv[1:]
    os.environ["PENSTOCK_HOME"] = home
    config = {
        "result": result,
        "reduction": reduction,
        "micro_batches": int(micro_batches),
        "width": int(width),
        "steps": int(steps),
    }
    ps.train(fit, config, workers=int(ranks), fresh=True, checkpoint_every="1h", threads=1)


if __name__ == "__main__":
    ps.main(main)
