"""What a controller heard and has still to tell: events that wait for the next commit.

Each commit waits for the disk, and after a death nothing may wait long: so what the agent said of
it is told in the transaction that ends the attempt. The agent's words are acknowledged when they
stand in the rows; a controller that dies before hears them again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from penstock.meta import Writer

T = TypeVar("T")
U = TypeVar("U")


class News:
    """One run's, in the hands of its controller's one thread."""

    def __init__(self, run_id: str) -> None:
        self._subject = f"run/{run_id}"
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._heard = 0

    def __bool__(self) -> bool:
        return bool(self._events)

    def add(self, kind: str, body: dict[str, Any]) -> None:
        self._events.append((kind, body))

    def heard(self, seq: int | None) -> None:
        """The number of a word of the agent's, which may have brought news; None: it has none."""
        self._heard = self._heard if seq is None else seq

    def in_rows(self) -> int:
        """The newest number whose news stand in the rows, once; 0: none since."""
        if self._events:
            return 0
        seq, self._heard = self._heard, 0
        return seq

    def told_with(
        self, commit: Callable[[Callable[[Writer], T]], U], change: Callable[[Writer], T]
    ) -> U:
        """A commit of a change that tells them before it."""
        news = tuple(self._events)

        def both(tx: Writer) -> T:
            for kind, body in news:
                tx.event(self._subject, kind, body)
            return change(tx)

        given = commit(both)
        del self._events[: len(news)]
        return given
