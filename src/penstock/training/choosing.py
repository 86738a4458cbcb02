"""What a gang goes on from: the state in memory, or the newest checkpoint. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

TRIES = 2  # gangs that may begin with one state in memory before the blobs are preferred


@dataclass(frozen=True, slots=True)
class Kept:
    """A state that all seats of the agent hold whole; step 0: none.

    tries  gangs that began with it: one that ranks cannot begin with must not be tried for ever

    >>> Kept(1, 57, 2).is_of_use(2), Kept(1, 57, 2).is_of_use(3), Kept().is_of_use(2)
    (True, False, False)
    """

    gang: int = 0
    step: int = 0
    world_size: int = 0
    tries: int = 0

    def heard(self, gang: int, step: int, world_size: int) -> Kept:
        """What the agent says now; of the same state the tries stay."""
        if (gang, step) == (self.gang, self.step):
            return self
        return Kept(gang, step, world_size)

    def is_of_use(self, world_size: int) -> bool:
        return self.step > 0 and self.world_size == world_size and self.tries < TRIES

    def tried(self) -> Kept:
        return replace(self, tries=self.tries + 1)

    def refused(self) -> Kept:
        """It turned out not to be whole."""
        return replace(self, tries=TRIES)


def is_far(blobs_url: str) -> bool:
    """Whether a store is beyond this machine's disks."""
    return not blobs_url.startswith("file:")


def tier_of(blobs_url: str, fetched: int) -> Literal["disk", "store"]:
    """Where a checkpoint was read from. fetched: blobs of it that this machine's disk lacked."""
    return "store" if is_far(blobs_url) and fetched else "disk"
