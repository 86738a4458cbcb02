"""A named endpoint: what is wanted and what is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

DeploymentState = Literal["pending", "starting", "ready", "draining", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """model     reference as asked, e.g. "digits-cnn@production"
    resolved  reference that is served
    revision  for compare-and-swap
    address   "127.0.0.1:PORT" of the gRPC endpoint once it is ready
    """

    name: str
    model: str
    resolved: str
    state: DeploymentState
    wanted: Literal["up", "down"]
    revision: int
    created_at: float
    updated_at: float
    address: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)
