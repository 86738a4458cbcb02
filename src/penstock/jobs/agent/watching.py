"""What an agent sees of its gang in the page of words, told to the controller."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.jobs.agent.children import Child
from penstock.jobs.agent.hangs import HangWatch
from penstock.jobs.agent.outbox import Outbox
from penstock.jobs.words import Words


class Watching:
    """Of one gang: how far its ranks are, and whether it hangs.

    words  None while there is no gang
    hang_seconds  see `HangWatch`; None: nobody watches for hangs
    others  whether the gang has ranks elsewhere
    """

    def __init__(
        self,
        outbox: Outbox,
        gang: int = 0,
        words: Words | None = None,
        ranks: Mapping[int, Child] | None = None,
        hang_seconds: float | None = None,
        others: bool = False,
    ) -> None:
        self._outbox = outbox
        self._gang = gang
        self._words = words
        self._shown: list[int] = []
        self._hangs: HangWatch | None = None
        if words is not None and hang_seconds is not None:
            self._hangs = HangWatch(words, ranks or {}, hang_seconds, others=others)

    def look(self) -> None:
        """Called several times a second."""
        steps = self._words.steps() if self._words is not None else []
        if steps and steps != self._shown:
            self._shown = steps
            self._outbox.replace("progress", {"gang": self._gang, "steps": steps})
        if self._hangs is not None and self._hangs.look():
            self.tell_hang()

    def tell_hang(self) -> None:
        """Also again, to a new controller."""
        if self._hangs is not None and self._hangs.account is not None:
            self._outbox.put("hung", {"gang": self._gang, **self._hangs.account})
