"""Events on their way to the controller: kept until acknowledged, in order."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any


class Outbox:
    """Written by the agent's loop, read by gRPC threads."""

    def __init__(self) -> None:
        self._events: deque[dict[str, Any]] = deque()
        self._seq = 0
        self._changed = threading.Condition()
        self.closed = False

    def put(self, kind: str, body: dict[str, Any]) -> None:
        with self._changed:
            self._seq += 1
            self._events.append({"seq": self._seq, kind: body})
            self._changed.notify_all()

    def replace(self, kind: str, body: dict[str, Any]) -> None:
        """Like `put`, but an unread event of the same kind at the end is taken back first."""
        with self._changed:
            if self._events and kind in self._events[-1]:
                self._events.pop()
        self.put(kind, body)

    def acknowledge(self, seq: int) -> None:
        with self._changed:
            while self._events and self._events[0]["seq"] <= seq:
                self._events.popleft()

    def after(self, seq: int, timeout: float) -> list[dict[str, Any]]:
        """Events later than `seq`, waiting for the first."""
        with self._changed:
            if self._seq <= seq and not self.closed:
                self._changed.wait(timeout)
            return [event for event in self._events if event["seq"] > seq]

    def close(self) -> None:
        """Nothing more comes: whoever waits is let go."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
