"""A training of 200 MB of state that saves in one of several ways; what its steps waited, as JSON.

checkpoint_step.py HOW EVERY STEPS HOME RESULT

Every way is measured by the same clock readings: the seconds between the end of one step's body and
the beginning of the next, and those that the optimiser's step takes longer than it does where
nothing is saved.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

try:
    import penstock as ps
except ImportError:  # in a peer's own environment
    ps = None  # type: ignore[assignment]

_LAYERS, _WIDTH = 16, 1024  # 16.8 million parameters: 67 MB, and 134 MB of Adam's
_PRODUCTS = 24  # of the step's compute, beside the optimiser's: some 50 ms of one core
_WARM_UP = 5  # steps


class Training:
    """Model, optimiser, and a step that always computes the same amount."""

    def __init__(self, distribute: Callable[[Any], Any] = lambda model: model) -> None:
        import torch

        layers = [torch.nn.Linear(_WIDTH, _WIDTH) for _ in range(_LAYERS)]
        self.model = distribute(torch.nn.Sequential(*layers))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self._square = torch.randn(512, 512)
        for parameter in self.model.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        self.times: list[tuple[float, ...]] = []
        self.guard: Callable[[], AbstractContextManager[Any]] = nullcontext  # of the update

    def compute(self) -> None:
        for _ in range(_PRODUCTS):
            self._square @ self._square

    def body(self) -> None:
        began = time.perf_counter()
        self.compute()
        computed = time.perf_counter()
        with self.guard():
            self.optimizer.step()
        self.times.append((began, computed, time.perf_counter()))

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def told(self, every: int) -> dict[str, Any]:
        """between: seconds from the end of each step to the next; optimizer: of its own step."""
        times = self.times[_WARM_UP:]
        between = [after[0] - before[2] for before, after in pairwise(times)]
        saved = [(number + 1 + _WARM_UP) % every == 0 for number in range(len(between))]
        optimizer = [after[2] - after[1] for after in times[1:]]
        seconds = times[-1][2] - times[0][2]
        return {"between": between, "optimizer": optimizer, "saved": saved, "seconds": seconds}


def fit(run: ps.Run, config: dict) -> None:
    training = Training(run.distribute)
    run.track(model=training.model, optimizer=training.optimizer)
    for _ in run.steps(config["steps"]):
        training.body()
    Path(config["result"]).write_text(json.dumps(training.told(config["every"])))


def peer(how: str, every: int, steps: int, folder: Path) -> dict[str, Any]:
    import torch
    import torch.distributed as dist
    import torch.distributed.checkpoint as dcp

    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    store = dist.FileStore(str(folder / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    training = Training()
    waiting: Any = None
    if how == "torch_checkpointing":
        from torch_checkpointing import CheckpointManager
        from torch_checkpointing.storage.filesystem import LocalFileSystemStorageConfig

        config = CheckpointManager.Config.with_async_save()
        config.storage_config = LocalFileSystemStorageConfig(use_direct_io=False)  # EINVAL here
        manager = config.build()
        training.guard = manager.lock  # without it, a checkpoint holds parts of two steps

    def save(step: int) -> None:
        nonlocal waiting
        if how == "torch.save":
            with (folder / "state.new").open("wb") as out:
                torch.save(training.state(), out)
                out.flush()
                os.fsync(out.fileno())
            (folder / "state.new").replace(folder / "state")
        elif how == "dcp.save":
            dcp.save(training.state(), checkpoint_id=folder / f"{step % 2}")
        elif how == "dcp.async_save":
            if waiting is not None:
                waiting.result()
            waiting = dcp.async_save(training.state(), checkpoint_id=folder / f"{step % 2}")
        elif how == "torch_checkpointing":
            if waiting is not None:
                waiting.result()
            waiting = manager.save(str(folder / f"{step}"), training.state())

    for step in range(1, steps + 1):
        training.body()
        if step % every == 0:
            save(step)
    told = training.told(every)
    if waiting is not None:
        waiting.result()
    dist.destroy_process_group()
    return told


def main() -> None:
    how, every, steps, home, result = sys.argv[1:]
    if how.startswith("Penstock"):
        os.environ["PENSTOCK_HOME"] = home
        os.environ["PENSTOCK_KEEP_CHECKPOINTS"] = "2"
        config = {"every": int(every), "steps": int(steps), "result": result}
        ps.train(fit, config, fresh=True, checkpoint_every=int(every), threads=1)
    else:
        Path(result).write_text(json.dumps(peer(how, int(every), int(steps), Path(home))))


if __name__ == "__main__":
    main() if ps is None else ps.main(main)
