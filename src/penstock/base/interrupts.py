"""Ctrl-C, counted where an exception at any line would be lost or would tear something."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_COUNTED = 2  # the next one raises: the way out of a call that does not return


@dataclass(slots=True)
class Interrupts:
    """How often the user pressed Ctrl-C."""

    count: int = 0

    def hear(self) -> None:
        """One more. Raises KeyboardInterrupt after the second."""
        self.count += 1
        if self.count > _COUNTED:
            raise KeyboardInterrupt


@contextmanager
def counted() -> Iterator[Interrupts]:
    """Count the first two Ctrl-C in the main thread instead of raising KeyboardInterrupt; the
    third raises. A handler that is not Python's own stays, and then nothing is counted here. The
    handler is put back at the end.

    Raises KeyboardInterrupt.
    """
    interrupts = Interrupts()

    def hear(number: int, frame: FrameType | None) -> None:
        interrupts.hear()

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupts
        return
    try:
        signal.signal(signal.SIGINT, hear)
    except ValueError:  # not the main thread: no Ctrl-C reaches it
        yield interrupts
        return
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
