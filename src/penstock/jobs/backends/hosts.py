"""Several machines played by one: each an agent of its own, with folders of its own, that is
reached over the network as any other. To try out, and to test, what several machines do.

Each machine has caches of its own, below "hosts" in the home of such work: another agent on it,
of this run or the next, finds what was there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from penstock.base.errors import BadInput
from penstock.jobs.backends import hosting
from penstock.jobs.backends.hosting import Hosted
from penstock.jobs.backends.places import Over, Place, Waits, Wish

_ADDRESS = "127.0.0.1"


class Hosts:
    """See `places.Places`. Owns the agents, which end with this process.

    count  machines
    room   ranks of each; 0: as many as it takes for the gang to fit
    """

    def __init__(self, spec: dict[str, Any], count: int, room: int) -> None:
        self._spec, self._count, self._room = spec, count, room
        self._agents: dict[str, Hosted] = {}
        self._slots: dict[str, int] = {}
        self._numbers: dict[str, int] = {}  # of the machines that they play

    def find(self) -> list[Place]:
        return [self._place(name) for name, each in self._agents.items() if each.is_alive()]

    def want(self, wish: Wish, waits: Waits, over: Over) -> list[Place]:
        room = self._room or -(-wish.ranks // self._count)
        ranks = min(wish.ranks, max(wish.least, room * self._count))
        if room * self._count < ranks:
            raise BadInput(
                f"{ranks} ranks have no room on {self._count} hosts of {room}",
                "Ask for fewer workers.",
            )
        known = {each.name for each in wish.have}
        for name in [name for name in self._agents if name not in known]:
            self._drop(name)
        while sum(self._slots.values()) < ranks and not over():
            if len(self._agents) == self._count:  # too small for the larger gang
                self._drop(next(iter(self._agents)))
            number = min(set(range(self._count)) - set(self._numbers.values()))
            caches = self._caches(number)
            found = hosting.host(hosting.new_name(), self._spec, _ADDRESS, caches)
            self._agents[found.name], self._slots[found.name] = found, room
            self._numbers[found.name] = number
        return self.find()

    def leaving(self) -> dict[str, float]:
        return {}

    def drop(self, place: Place, silent: bool = False) -> None:
        self._drop(place.name)

    def end(self) -> None:
        for name in list(self._agents):
            self._drop(name)
        for number in range(self._count):
            hosting.forget(self._spec["run_id"], self._caches(number))

    def _drop(self, name: str) -> None:
        if (found := self._agents.pop(name, None)) is not None:
            del self._slots[name], self._numbers[name]
            found.close()

    @staticmethod
    def _caches(number: int) -> Path:
        return hosting.node_home() / "hosts" / str(number)

    def _place(self, name: str) -> Place:
        return Place(name, self._agents[name].door, self._slots[name])
