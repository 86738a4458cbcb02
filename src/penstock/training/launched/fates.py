"""How a launched gang ends, from what its ranks said and from who is dead. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

_SETTLE = 1.0  # seconds to wait, when a rank raised, for a death that explains it


@dataclass(frozen=True, slots=True)
class Fate:
    """state  of the run from now on; None: it goes on when the launcher starts the ranks again"""

    outcome: Literal["finished", "stopped", "preempted", "failed", "died"]
    cause: str
    error: dict[str, Any] | None = None

    @property
    def state(self) -> str | None:
        return None if self.outcome in ("preempted", "died") else self.outcome


@dataclass(frozen=True, slots=True)
class Said:
    """How the function ended on one rank.

    how  "finished", "drained", "raised", or "interrupted" (Ctrl-C)
    at   seconds on the owner's clock
    """

    how: str
    at: float
    error: dict[str, Any] | None = None


def fate(
    said: Mapping[int, Said],
    dead: Collection[int],
    world: int,
    now: float,
    leaving: str | None,
) -> Fate | None:
    """None as long as it goes on.

    said     rank -> how its function ended
    dead     ranks whose processes are gone
    leaving  why all ranks were asked to leave: "preempted", or a stop's reason
    """
    if any(each.how == "interrupted" for each in said.values()):
        return Fate("stopped", "Ctrl-C")
    unexplained = [rank for rank in dead if rank not in said]
    if unexplained:
        return Fate("died", f"rank {min(unexplained)} died")
    raised = [(each.at, rank) for rank, each in said.items() if each.how == "raised"]
    if raised and (now - min(raised)[0] >= _SETTLE or len(said) == world):
        first = min(raised)[1]
        error = said[first].error or {}
        return Fate("failed", str(error.get("what", "a rank raised")), error)
    if len(said) < world or raised:
        return None
    if all(each.how == "finished" for each in said.values()):
        return Fate("finished", "finished")
    if leaving == "preempted":
        return Fate("preempted", "preempted")
    return Fate("stopped", leaving or "stopped on request")
