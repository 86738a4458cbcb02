"""Nodes that gave no answer: Ray takes long to say that one is dead, and offers its room."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from penstock.jobs.backends.ray.planning import Node

_TERM = 15.0  # seconds, after which it is tried again


class Suspects:
    """One keeper's."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}  # id of a node -> on the monotonic clock

    def add(self, node: str) -> None:
        self._until[node] = time.monotonic() + _TERM

    def clear(self, node: str) -> None:
        self._until.pop(node, None)

    def __contains__(self, node: str) -> bool:
        return self._until.get(node, 0.0) > time.monotonic()

    def passed_over(self, nodes: Sequence[Node]) -> list[Node]:
        """The nodes, with no room on those that are suspected."""
        return [replace(node, available={}) if node.id in self else node for node in nodes]
