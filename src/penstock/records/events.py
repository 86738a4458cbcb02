"""One line of the story: audit log, live feed and history of every state machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """seq      cursor; increases in commit order, without a reader ever seeing one late
    at       seconds since 1970 on the meta store's clock
    subject  "run/ID", "model/NAME", "dataset/NAME", "deployment/NAME", …
    kind     "run.started", "rank.died", "alias.moved", …
    body     JSON-able details
    """

    seq: int
    at: float
    subject: str
    kind: str
    body: dict[str, Any] = field(default_factory=dict)
