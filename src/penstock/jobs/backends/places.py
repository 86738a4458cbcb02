"""What a fleet may expect of whoever starts agents on other machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.base.errors import BadInput
from penstock.jobs.rpc import Door


@dataclass(frozen=True)
class Place:
    """An agent that is there.

    name   no other agent ever has it: "node-3f9a1c"
    door   the way to it
    slots  ranks that it may have
    """

    name: str
    door: Door
    slots: int


@dataclass(frozen=True)
class Wish:
    """Places for a gang.

    ranks  so many
    least  so many will do, when there are not more within a moment
    have   the places that one has
    once   only what can be had now
    waits  also for more than there is now: so many were there once, and may come back
    moment seconds to wait for all of them, before fewer will do
    avoid  addresses of machines that it should not be on, unless there is no room elsewhere; with
           `once` in no case
    """

    ranks: int
    least: int
    have: tuple[Place, ...]
    once: bool = False
    waits: bool = False
    moment: float = 2.0
    avoid: tuple[str, ...] = ()

    @property
    def slots(self) -> int:
        """Ranks that what one has will take."""
        return sum(each.slots for each in self.have)


Waits = Callable[[dict[str, Any]], None]  # told what is waited for: {"shown": "2 ranks of …", …}
Over = Callable[[], bool]


class Places(Protocol):
    """Of one run. Safe for two threads: one that waits in `want`, one that calls the rest."""

    def find(self) -> list[Place]:
        """Those that a predecessor left. Raises Unavailable."""
        ...

    def want(self, wish: Wish, waits: Waits, over: Over) -> list[Place]:
        """What is wished for, what one has among it; waiting while it is taken. Raises BadInput
        when there can never be so many, Unavailable.

        over  whether nobody wants them any more: then it returns what there is
        """
        ...

    def leaving(self) -> dict[str, float]:
        """Name of a place -> seconds until its machine is taken away, as was announced."""
        ...

    def drop(self, place: Place, silent: bool = False) -> None:
        """It is lost, or of no use: nothing is left of it as far as that can be reached. Does not
        wait.

        silent  it gave no answer: its machine is to have no other for a while
        """
        ...

    def end(self) -> None:
        """All of them, and all that was asked for."""
        ...


def share(ranks: int, places: Sequence[Place]) -> dict[str, list[int]]:
    """name -> ranks, in order and as few places as will do; empty where there is no room.

    >>> door = Door("10.0.0.1", 1, "", "")
    >>> share(3, [Place("a", door, 2), Place("b", door, 2), Place("c", door, 2)])
    {'a': [0, 1], 'b': [2]}
    """
    if ranks < 1:
        raise BadInput(f"a gang of {ranks} ranks", "Ask for one at least.")
    given: dict[str, list[int]] = {}
    left = list(range(ranks))
    for place in places:
        if left:
            given[place.name], left = left[: place.slots], left[place.slots :]
    return {} if left else given
