"""What Ray Train tells a worker of itself.

The only module of this room that imports Ray, and only in a process that has imported Ray Train
already: nobody else gets behind the first line of `seat`.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from penstock.base.errors import BadInput
from penstock.training.launched.seat import RAY_TRAIN, Seat

_LAST = 10.0  # seconds before a node is taken away


def seat() -> Seat | None:
    """This worker's, by Ray Train's own context; None in any other process, and where the loop
    runs in the script itself (num_workers=0). Raises BadInput without a process group."""
    if "ray.train" not in sys.modules:
        return None
    import ray.train
    import torch.distributed as dist

    try:
        context = ray.train.get_context()
    except (RuntimeError, DeprecationWarning):  # the script; or a session of Ray Tune
        return None
    world = context.get_world_size()
    if not isinstance(world, int):  # the first Ray Train, in the script
        return None
    if not dist.is_initialized():
        if world == 1:
            return None
        raise BadInput(
            "the workers of this trainer share no process group of torch.distributed",
            "Use ray.train.torch.TorchTrainer, which makes one.",
        )
    local = context.get_local_rank(), context.get_local_world_size()
    host = ray.util.get_node_ip_address()
    return Seat(RAY_TRAIN, context.get_world_rank(), world, local, host, 0)


def device() -> dict[str, Any]:
    """Of a run's payload: the device that Ray gave this worker (see `group.device`)."""
    import ray.train.torch

    found = ray.train.torch.get_device()
    if found.type == "cuda":
        return {"gpu": found.index or 0}
    return {"device": "cpu"} if found.type == "cpu" else {}


class Notice:
    """Whether all are to save, because Ray is about to take a node of theirs away: when that is
    known, and once more shortly before. For rank 0, which is told as all are."""

    def __init__(self) -> None:
        self._said = 0

    def __call__(self) -> bool:
        info = _preemption()
        if info is None or self._said > 1:
            return False
        ends = info.deadline_ms
        if self._said == 1 and (ends is None or ends / 1000 - time.time() > _LAST):
            return False
        self._said += 1
        return True


def _preemption() -> Any:
    """What `ray.train.get_preemption_info` gives, which all ranks would have to call at once."""
    from ray.train.v2._internal.execution.context import get_train_context

    try:
        return get_train_context().preemption_context.preemption_info
    except (AttributeError, RuntimeError):  # a version of Ray that tells nothing
        return None
