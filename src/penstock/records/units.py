"""A unit of a map: leased, executed at least once, its effect committed exactly once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Unit:
    """generation  of the lease under which it was given out or committed"""

    run_id: str
    key: str
    state: Literal["waiting", "leased", "done", "failed"]
    payload: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    tries: int = 0
    generation: int = 0
