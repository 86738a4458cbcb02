"""The agent's one selector: descriptors, and what to do when something is there to be read."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import Any


class Eyes:
    """Used by the agent's one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def watch(self, fd: Any, handler: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, handler)

    def forget(self, fd: Any) -> None:
        """Also what was never watched, or is closed."""
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError):
            return

    def look(self, timeout: float) -> None:
        """Call the handlers of all that can be read, waiting up to `timeout` seconds."""
        for key, _ in self._selector.select(timeout=timeout):
            key.data()
