"""A seat: what the agent has for one rank number, whoever sits there.

Slots (shared buffers) belong to the seat and not to the process: they survive a rank, and the next
one gets the same memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from penstock.jobs.agent.held import Name


@dataclass
class Seat:
    """slots    slot -> descriptor
    size     bytes of each
    keeps    whether whole states stay here: the memory tier
    in_memory  False: the slots are unlinked files
    handed   slots that a sidecar was given and is not done with: slot -> message
    held     whole states: name -> (slot, seal)
    coming   slots that are about to be handed over
    retired  slots of an earlier size that a sidecar still reads
    """

    rank: int
    slots: dict[str, int] = field(default_factory=dict)
    size: int = 0
    keeps: bool = False
    in_memory: bool = True
    handed: dict[str, dict[str, Any]] = field(default_factory=dict)
    held: dict[Name, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    coming: set[str] = field(default_factory=set)
    retired: dict[str, int] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Memory that its slots take."""
        return self.size * len(self.slots) if self.in_memory else 0

    def is_free(self, slot: str) -> bool:
        promised = slot in self.handed or slot in self.coming
        return not promised and all(slot != kept for kept, _ in self.held.values())

    def busy(self) -> list[str]:
        return [slot for slot in self.slots if not self.is_free(slot)]

    def retire(self) -> None:
        """Give the slots up; those that a sidecar still reads when it is done."""
        self.held.clear()
        self.coming.clear()
        self.retired |= self.slots
        self.slots, self.size, self.keeps = {}, 0, False
        self.tidy()

    def tidy(self) -> None:
        """Close what was retired and is read by nobody."""
        for slot in [slot for slot in self.retired if slot not in self.handed]:
            os.close(self.retired.pop(slot))
