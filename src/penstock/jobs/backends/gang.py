"""What a fleet knows of the gang that is wanted, put together from what its parts say."""

from __future__ import annotations

import math
import time
from collections import deque
from typing import Any

_AHEAD = 1.5  # seconds until all ranks have surely seen a step that was agreed on


class Gang:
    """One attempt's.

    order   the controller's, whole; None: it was found, and began before this controller did
    shares  name of an agent -> its ranks, once that is decided; the first has rank 0
    """

    def __init__(self, number: int, world: int, order: dict[str, Any] | None = None) -> None:
        self.number = number
        self.world = world
        self.order = order
        self.shares: dict[str, list[int]] = {}
        self.told: set[str] = set()  # agents that were ordered to start their part
        self.killed = False
        self.faulty = False  # something went wrong in it; what follows is not told apart
        self._steps = [0] * world
        self._pids: dict[str, int] = {}
        self._pace: deque[tuple[float, int]] = deque(maxlen=8)

    @classmethod
    def ordered(cls, order: dict[str, Any]) -> Gang:
        return cls(int(order["gang"]), int(order["world_size"]), order)

    @property
    def sizes(self) -> tuple[int, int]:
        """(fewest, most) ranks that a gang of this run may have."""
        least, most = (self.order or {}).get("sizes", (self.world, self.world))
        return int(least), int(most)

    @property
    def is_elastic(self) -> bool:
        return self.sizes[0] < self.sizes[1]

    def is_it(self, body: dict[str, Any]) -> bool:
        return bool(body["gang"] == self.number)

    def started(self, pids: dict[str, int]) -> dict[str, int] | None:
        """All pids, once all parts have told theirs."""
        known = self.begun(pids)
        return known if len(known) == self.world else None

    def begun(self, pids: dict[str, int]) -> dict[str, int]:
        """Those of all ranks that have begun; a part tells those of its own."""
        self._pids |= pids
        return {rank: self._pids[rank] for rank in sorted(self._pids, key=int)}

    def progressed(self, ranks: list[int], steps: list[int]) -> list[int]:
        """The steps of all ranks, with what one part tells of its own."""
        for rank in ranks:
            self._steps[rank] = steps[rank]
        self._pace.append((time.monotonic(), max(self._steps)))
        return list(self._steps)

    @property
    def slowest(self) -> int:
        """The step that all ranks have completed."""
        return min(self._steps, default=0)

    @property
    def pace(self) -> float:
        """Steps a second, lately; 0: that is not known."""
        if len(self._pace) < 2:
            return 0.0
        (t0, s0), (t1, s1) = self._pace[0], self._pace[-1]
        return max(0.0, (s1 - s0) / max(t1 - t0, 0.25))

    def agreed(self, margin: int) -> int:
        """A step that no rank has completed when it hears of it."""
        newest = max(self._steps, default=0)
        if len(self.shares) < 2:
            return newest + margin
        return newest + margin + math.ceil(_AHEAD * self.pace)
