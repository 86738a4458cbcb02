"""What a run waits for, told to Ray: an autoscaler adds nodes for it, and nobody overtakes it.

It is a placement group of the ranks that are missing, which waits. Once Ray has room for it, it is
given back and the room is taken by the run's own groups, which are pinned to nodes.
"""

from __future__ import annotations

import contextlib
from typing import Any

from penstock.jobs.backends.ray.cluster import Cluster

NAME = "wanted"


class Demand:
    """Of one run; one group at most. Used by the keeper's one thread that asks.

    labels  that its nodes are to have
    A keeper that dies leaves it, and the next one drops it by its name.
    """

    def __init__(self, cluster: Cluster, run: str, labels: dict[str, str]) -> None:
        self._cluster = cluster
        self._name = f"{run}/{NAME}"
        self._labels = labels
        self._group: Any = None
        self._told: tuple[int, dict[str, float]] | None = None

    def tell(self, ranks: int, each: dict[str, float]) -> None:
        """each: resources of a rank"""
        if self._told == (ranks, each):
            return
        self.withdraw()
        ray = self._cluster.ray
        self._group = self._cluster.call(
            "a placement group for what is missing",
            lambda: ray.util.placement_group(
                [dict(each) for _ in range(ranks)],
                strategy="PACK",
                name=self._name,
                lifetime="detached",
                bundle_label_selector=[self._labels] * ranks if self._labels else None,
            ),
        )
        self._told = (ranks, dict(each))

    def is_met(self) -> bool:
        """Whether Ray holds all of it now."""
        group = self._group
        if group is None:
            return False
        return bool(self._cluster.call("room", lambda: group.wait(timeout_seconds=0.01)))

    def withdraw(self) -> None:
        """Raises Unavailable; it is then still to be withdrawn."""
        self._told = None
        if (group := self._group) is None:
            return
        ray = self._cluster.ray
        with contextlib.suppress(ValueError):  # Ray does not know it any more
            self._cluster.call("what was missing", lambda: ray.util.remove_placement_group(group))
        self._group = None
