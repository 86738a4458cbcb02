"""Mixed precision: autocast on this rank's device, and the scale of the loss that fp16 needs.

Small gradients are zero in fp16, so the loss is multiplied by a scale before they are computed, and
they are divided by it before anything looks at them. A scale that is too large makes gradients that
are not finite: such a step is left out and the scale is halved; after 2000 steps without one it is
doubled. These are the rules and numbers of torch.amp.GradScaler. That class keeps its verdict per
rank and optimiser; here it comes from the norm that all ranks agree on, also where gradients lie in
shards, and the state is two numbers that are equal on all ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch

from penstock.base.errors import BadInput

Precision = Literal["bf16", "fp16", "fp32"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_BEGIN, _INTERVAL = 2.0**16, 2000
_LEAST = 1.0  # below it, what is not finite is no matter of the scale


class Mixed:
    """One rank's; equal on all. The scale is in use from the first `autocast("fp16")` on."""

    def __init__(self) -> None:
        self.scale: float | None = None
        self._steady = 0  # steps since it last changed
        self._overflowed = False
        self._acted = False

    def autocast(self, precision: Precision, device: torch.device) -> torch.autocast:
        """As `torch.autocast`, of this device. Raises BadInput."""
        if precision not in _DTYPES:
            raise BadInput(f'precision "{precision}"', f"Give one of {', '.join(_DTYPES)}.")
        if precision == "fp16" and self.scale is None:
            self.scale = _BEGIN
        return torch.autocast(device.type, _DTYPES[precision], enabled=precision != "fp32")

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        return loss if self.scale is None else loss * self.scale

    def unscale_(self, gradients: Sequence[torch.Tensor]) -> None:
        """Gradients as they would be without a scale, in place."""
        if self.scale is not None:
            for each in gradients:
                each.mul_(1.0 / self.scale)

    def overflows(self, norm: float) -> bool:
        """Whether the scale is to blame for a gradient that is not finite.

        norm  of the unscaled gradient, equal on all ranks
        """
        if self.scale is None:
            return False
        self._acted = True
        found = self.scale > _LEAST and not math.isfinite(norm)
        self._overflowed |= found
        return found

    def end_step(self) -> float | None:
        """After all optimisers of a step. The new scale, where it changes."""
        acted, overflowed = self._acted, self._overflowed
        self._acted = self._overflowed = False
        if self.scale is None or not acted:
            return None
        self._steady = 0 if overflowed else self._steady + 1
        if overflowed:
            self.scale /= 2
        elif self._steady == _INTERVAL:
            self.scale, self._steady = self.scale * 2, 0
        else:
            return None
        return self.scale

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"scale": self.scale, "steady": self._steady}

    def load(self, state: dict[str, Any] | None) -> None:
        """Put `state` back; None: there was none yet."""
        if state is not None:
            self.scale, self._steady = state["scale"], state["steady"]
