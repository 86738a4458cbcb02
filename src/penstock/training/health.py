"""Is a step's gradient fit to be applied? One verdict for all ranks, from the reduced gradient.

A step whose gradient is not finite, or (where asked) far larger than usual, is left out: the
weights stay those of the last good step. Where that happens too often in a row, the trouble lies
further back, and the run goes back to a checkpoint before it; see `penstock.training.windows`.

"Usual" is an exponential mean of the logarithm of the norms of healthy steps, per optimiser. It is
kept in checkpoints, so that a resumed run judges alike. All of it is computed by the host from the
one number that is waited for: tensor operations on scalars would cost more than the judging.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from penstock.base.errors import BadInput, GradientsUnhealthy

DECAY = 0.98  # of the mean, per healthy step: it remembers some 50
LEARN = 50  # healthy steps before any norm counts as too large
_LEAST = 1e-38  # a norm of 0 has no logarithm


@dataclass(slots=True)
class _Usual:
    """One optimiser's healthy steps: how many, and the mean of log(norm)."""

    seen: int = 0
    log_norm: float | None = None


class Health:
    """One rank's; equal on all.

    spikes    times the usual norm beyond which a gradient is left out; None: only what is not
              finite is
    patience  unhealthy steps in a row after which the run goes back; 0: never
    """

    def __init__(self, spikes: float | None = None, patience: int = 10) -> None:
        if spikes is not None and not spikes > 1:
            raise BadInput(
                f"spikes={spikes} would leave out gradients of the usual size",
                "Give how many times the usual norm is too much, such as 10.",
            )
        if patience < 0:
            raise BadInput(f"patience={patience}", "Give steps in a row, or 0 for never.")
        self.spikes = spikes
        self.patience = patience
        self._usual: dict[str, _Usual] = {}
        self._first: int | None = None  # of the unhealthy steps in a row
        self._bad_now = False
        self._norm = math.nan

    def judge(self, name: str, norm: float) -> bool:
        """Whether the gradient of the optimiser `name` is to be applied.

        norm  of the reduced gradient, before clipping
        """
        usual = self._usual.setdefault(name, _Usual())
        healthy = math.isfinite(norm)
        if self.spikes is not None and healthy:
            log_norm = math.log(max(norm, _LEAST))
            if usual.log_norm is not None and usual.seen >= LEARN:
                healthy = log_norm <= usual.log_norm + math.log(self.spikes)
            if healthy:
                _learn(usual, log_norm)
        if not healthy:
            self._bad_now, self._norm = True, norm
        return healthy

    def end_step(self, step: int) -> None:
        """After all optimisers of a step. Raises GradientsUnhealthy when patience is over.

        step  completed ones, this one counted
        """
        if not self._bad_now:
            self._first = None
            return
        self._bad_now = False
        self._first = step if self._first is None else self._first
        if not self.patience or step - self._first + 1 < self.patience:
            return
        raise GradientsUnhealthy(
            f"gradients were unhealthy in steps {self._first} to {step} (the last norm: "
            f"{self._norm:g})",
            "Lower the learning rate, clip, or look at the data of these steps. The next attempt "
            "goes back to a checkpoint before them and leaves the steps out.",
            first=self._first,
            until=step,
        )

    def state(self) -> dict[str, Any]:
        """For a checkpoint; equal on all ranks."""
        usual = {name: [each.seen, _stored(each.log_norm)] for name, each in self._usual.items()}
        return {"usual": usual, "first": self._first}

    def load(self, state: dict[str, Any]) -> None:
        """Put `state` back; what was skipped on the way, after going back, is forgotten."""
        self._first = state["first"]
        for name, (seen, log_norm) in state["usual"].items():
            self._usual[name] = _Usual(seen, None if log_norm is None else float(log_norm))

    def forget(self) -> None:
        """Steps were left out: those before are no longer in a row with what comes."""
        self._first = None


def _learn(usual: _Usual, log_norm: float) -> None:
    """A bias-free mean: the first steps weigh alike."""
    keep = min(DECAY, usual.seen / (usual.seen + 1))
    usual.log_norm = keep * (usual.log_norm or 0.0) + (1 - keep) * log_norm
    usual.seen += 1


def _stored(log_norm: float | None) -> torch.Tensor | None:
    """[] float64, exactly."""
    return None if log_norm is None else torch.tensor(log_norm, dtype=torch.float64)
