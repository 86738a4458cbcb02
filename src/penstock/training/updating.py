"""The optimiser's step: the norm of its gradients, a verdict on them, clipping, the update.

What the host reads is one number, the norm. All else about a step that is not out of the ordinary
(that it is healthy, that nothing is to be clipped) follows from it without an operation on tensors.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from penstock.base.errors import BadInput
from penstock.training.clipping import clip_, norm_of
from penstock.training.distributing import Distribution
from penstock.training.health import Health
from penstock.training.precision import Mixed
from penstock.training.tracked import Tracked

Outcome = Literal["taken", "unhealthy", "overflow"]


class Updates:
    """One rank's; equal on all.

    skipped  steps not taken because gradients were unhealthy, also those of earlier attempts
    """

    def __init__(self, tracked: Tracked, laid: Distribution, world_size: int) -> None:
        self.health = Health()
        self.mixed = Mixed()
        self.skipped = 0
        self._tracked, self._laid, self._world_size = tracked, laid, world_size

    def name_of(self, optimizer: torch.optim.Optimizer) -> str:
        """That it is tracked under. Raises BadInput."""
        name = self._tracked.name_of(optimizer)
        if name is None:
            raise BadInput(
                "run.step got an optimiser that is not tracked: a restart would forget it",
                "Add it to run.track(optimizer=optimizer).",
            )
        return name

    def step(self, name: str, optimizer: torch.optim.Optimizer, clip: float | None) -> Outcome:
        """Apply the gradients if they are fit for it, and clear them.

        name  that the optimiser is tracked under
        clip  largest global norm of its gradients
        """
        parameters = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        gradients = [each.grad for each in parameters]
        with torch.no_grad():
            self.mixed.unscale_(gradients)
            norm = norm_of(gradients, self._world_size, self._laid.differ)
            outcome = self._judge(name, value := float(norm))
            if outcome == "taken" and clip is not None:
                clip_(gradients, value, clip, norm.dtype)
        del gradients
        if outcome == "taken":
            optimizer.step()
        _clear(optimizer, parameters)
        return outcome

    def _judge(self, name: str, norm: float) -> Outcome:
        if self.mixed.overflows(norm):
            return "overflow"
        if self.health.judge(name, norm):
            return "taken"
        self.skipped += 1
        return "unhealthy"

    def state(self) -> dict[str, Any]:
        """For a checkpoint; equal on all ranks."""
        return {
            "skipped": self.skipped,
            "health": self.health.state(),
            "mixed": self.mixed.state(),
        }

    def load(self, skipped: int, health: dict[str, Any] | None, mixed: Any) -> None:
        """Put `state` back; None: there was none yet."""
        self.skipped = skipped
        if health is not None:
            self.health.load(health)
        self.mixed.load(mixed)


def _clear(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> None:
    """`zero_grad(set_to_none=True)`, at a tenth of its cost where it is torch's own."""
    own = type(optimizer).zero_grad is torch.optim.Optimizer.zero_grad
    if not own or "zero_grad" in vars(optimizer):
        optimizer.zero_grad(set_to_none=True)
        return
    for each in parameters:
        each.grad = None
