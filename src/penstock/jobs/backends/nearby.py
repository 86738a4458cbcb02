"""Who of a fleet's agents are neighbours: each is told how to read from the others."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.jobs.backends.member import Member
from penstock.jobs.neighbours.doors import Neighbours, as_message
from penstock.jobs.rpc import Door


class Nearby:
    """One fleet's. Used by the controller's one thread."""

    def __init__(self) -> None:
        self._told: tuple[set[str], dict[str, Door]] = set(), {}

    def tell(self, members: Mapping[str, Member]) -> None:
        """All of them, if there are others than when they were told last. Called often."""
        doors = {name: each.lends for name, each in members.items() if each.lends is not None}
        if (set(members), doors) == self._told:
            return
        self._told = set(members), doors
        for name, member in members.items():
            others = {other: door for other, door in doors.items() if other != name}
            member.send(neighbours=as_message(Neighbours(name, others)))
