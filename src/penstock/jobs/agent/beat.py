"""Signs of life for a controller on another machine, which sees no process of this one."""

from __future__ import annotations

import time

from penstock.jobs.agent.outbox import Outbox

EVERY = 0.5  # seconds


class Beat:
    """Of the agent's loop: one that hangs gives none."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._next = 0.0

    def look(self, heard: int) -> None:
        """Called several times a second. heard: number of the controller's newest command"""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + EVERY
            self._outbox.replace("beat", {"heard": heard})
