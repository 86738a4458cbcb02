"""How often in a row an attempt may end before its time, by what ended it. Pure.

"In a row" means: without a newer checkpoint, and without a newer state in the memory of the
agent: what dies at the same step each time gets no further in either. Gradients that stay unhealthy
are counted until there is a checkpoint. A preemption costs nothing. The
user's own exception is tried again once; see `penstock.jobs.decide`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

Cause = Literal["crash", "agent", "hang", "memory", "damage", "gradients"]

# How many in a row are followed by another attempt. Hangs have few, because each costs its waiting
# time; memory too, because what did not fit rarely fits the next time.
LIMITS: dict[Cause, int] = {
    "crash": 10,
    "agent": 10,
    "hang": 2,
    "memory": 2,
    "damage": 10,
    "gradients": 5,
}


@dataclass(frozen=True, slots=True)
class Budget:
    """What was spent since the newest checkpoint, per cause.

    committed   its step
    kept        newest step whose state was in memory
    last_error  the user's exception that was tried again, and its step
    """

    crash: int = 0
    agent: int = 0
    hang: int = 0
    memory: int = 0
    damage: int = 0
    gradients: int = 0
    committed: int = 0
    kept: int = 0
    last_error: tuple[str, int] | None = None

    @property
    def in_a_row(self) -> int:
        """Failures of all kinds since then."""
        return sum(int(getattr(self, cause)) for cause in LIMITS)

    def refilled(self, committed: int, kept: int = 0) -> Budget:
        """Full again, if there is a newer checkpoint, or a newer state in memory."""
        newest = max(kept, self.kept)
        if committed > self.committed:
            return Budget(committed=committed, kept=newest, last_error=self.last_error)
        if kept > max(self.committed, self.kept):
            full = Budget(committed=self.committed, kept=newest, last_error=self.last_error)
            return replace(full, gradients=self.gradients)
        return self

    def spend(self, cause: Cause) -> Budget | None:
        """With one failure more; None where there were too many."""
        spent = int(getattr(self, cause)) + 1
        change: dict[str, Any] = {cause: spent}
        return None if spent > LIMITS[cause] else replace(self, **change)
