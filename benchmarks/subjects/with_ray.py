"""The same training with Ray Train: python with_ray.py RECORD STEPS RANKS TEMPORARY.

A cluster of its own on this machine, ended with the script. Checkpoints go through
`ray.train.report`, as its documentation has it; failures are tried again without end.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from digits import EVERY, STEP
from ray.train.torch import TorchTrainer, prepare_model
from torch_loop import State, train


def fit(config: dict[str, Any]) -> None:
    """What each worker runs."""
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    torch.manual_seed(0)
    torch.set_num_threads(1)

    def save(state: State) -> None:
        if rank != 0:
            ray.train.report({"step": state["step"]})
            return
        with tempfile.TemporaryDirectory() as folder:
            torch.save(state, Path(folder) / "checkpoint.pt")
            kept = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"step": state["step"]}, checkpoint=kept)

    state = None
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder) / "checkpoint.pt")
    train(
        *(config["folder"], config["steps"], rank, world, prepare_model, state, save),
        step_seconds=config["step_seconds"],
        every=config["every"],
    )


def environment() -> dict[str, Any]:
    """Of the workers."""
    kept = {key: os.environ[key] for key in ("BENCH_DIGITS", "OMP_NUM_THREADS")}
    return {"env_vars": {**kept, "PYTHONPATH": str(Path(__file__).parent)}}


def trainer(folder: str, steps: int, workers: int | tuple[int, int]) -> TorchTrainer:
    """workers: so many, or (fewest, most)"""
    config = {"folder": folder, "steps": steps, "step_seconds": STEP, "every": EVERY}
    return TorchTrainer(
        fit,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, resources_per_worker={"CPU": 1}
        ),
        run_config=ray.train.RunConfig(
            name="bench",
            storage_path=f"{folder}/storage",
            failure_config=ray.train.FailureConfig(max_failures=-1),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )


def main() -> None:
    folder, steps, ranks, temporary = sys.argv[1:]
    ray.init(
        address="local",
        num_cpus=int(ranks),
        include_dashboard=False,
        logging_level="error",
        _temp_dir=temporary,
        runtime_env=environment(),
    )
    trainer(folder, int(steps), int(ranks)).fit()
    ray.shutdown()


if __name__ == "__main__":
    main()
