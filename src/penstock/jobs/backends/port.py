"""What a controller may expect of the agents of its run, wherever they are placed.

Whoever places them presents them as one: it splits what the controller wants among them, and
merges what they say. So a controller is the same on one machine and on many.
"""

from __future__ import annotations

from typing import Any, Protocol

Message = dict[str, Any]


class Agents(Protocol):
    """One run's, in the hands of its controller's one thread. See `jobs.rpc` for the messages."""

    def find(self, generation: int) -> bool:
        """Attach to those that a predecessor left. False when there are none to go on with, and
        then nothing of them is left. Raises LeaseLost where they obey a newer controller."""
        ...

    def start(self, generation: int) -> None:
        """New ones, after making sure that nothing of old ones is left. Raises Unavailable."""
        ...

    def send(self, **message: Any) -> None:
        """To all whom it concerns. What is said to the dead is lost; `lost` tells of them."""
        ...

    def hear(self, timeout: float) -> Message | None:
        """The next thing that they said, in order; None after `timeout` seconds. `{"lost": why}`
        when they, or some of them, are gone: no rank of the gang runs any more."""
        ...

    def room(self) -> int | None:
        """Ranks that there is room for at once; None: that is not known, or no limit."""
        ...

    def lost(self) -> None:
        """Give up those that are gone; nothing of theirs is left where that can be reached."""
        ...

    def kept(self) -> tuple[int, int, int]:
        """(gang, step, ranks) of the state that is whole in the memory of those that are left, when
        some are lost; zeros: none."""
        ...

    def end(self) -> None:
        """Tell all of them to end, and see that they do."""
        ...
