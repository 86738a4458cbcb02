"""What an agent of a fleet knows of states beyond its own seats: which the fleet wants to stay,
what it copied from its neighbours, and who has what its ranks begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.jobs.agent.copies import Copies
from penstock.jobs.agent.held import Name
from penstock.jobs.agent.parts import Part, PartName, Parts
from penstock.jobs.neighbours.doors import Neighbours

Found = Callable[[Part | None], None]


class Elsewhere:
    """Used by the agent's one thread.

    parts       all that are in this agent's memory, its seats' among them
    room        bytes that copies may take now; in any thread
    neighbours  as the fleet told them last
    arrived     into the loop, from a thread: see `Copies`
    """

    def __init__(
        self,
        parts: Parts,
        room: Callable[[], int],
        neighbours: Callable[[], Neighbours],
        arrived: Callable[[PartName, Part | None, dict[str, Any]], None],
    ) -> None:
        self.parts = parts
        self.stays: list[Name] = []
        self._copies = Copies(parts, room, arrived)
        self._neighbours = neighbours
        self._where: dict[PartName, list[str]] = {}  # of the state that the gang may begin with
        self._waiting: dict[PartName, list[Found]] = {}  # ranks that asked for it
        self._without: set[PartName] = set()  # parts that could not be copied
        self._paced = False

    @property
    def nbytes(self) -> int:
        """Memory that copies take."""
        return self._copies.nbytes

    def begin(self, memory: Mapping[str, Any], same: bool) -> None:
        """A gang begins. memory: of `States.begin`; same: it has as many ranks as the one before"""
        self._paced = False
        self._where = {}
        if memory:
            gang, step = memory["state"]
            where = memory["where"].items()
            self._where = {(gang, step, int(rank)): list(names) for rank, names in where}
        if not same:
            self.stays = []
            self._copies.keep_only(())

    def pace(self) -> None:
        """Ranks want to be told when to keep a state."""
        self._paced = True

    def told(self, cost: float | None) -> dict[str, Any]:
        """For the fleet."""
        parts, without = sorted(self.parts.names()), sorted(self._without)
        return {"parts": parts, "without": without, "paced": self._paced, "cost": cost}

    def stay(self, names: Sequence[Name]) -> None:
        self.stays = [(int(gang), int(step)) for gang, step in names]
        self._copies.keep_only(self.stays)
        self._without = {part for part in self._without if part[:2] in self.stays}

    def copy(self, parts: Sequence[Sequence[int]], source: str) -> None:
        """Have these of another agent; beside whatever else is done."""
        names = [(int(g), int(s), int(r)) for g, s, r in parts]
        self._without.difference_update(names)
        self._copies.pull(names, [source], self._neighbours())

    def adopt(self, name: PartName, part: Part) -> None:
        """A seat's that is no more, with its memory."""
        self._copies.adopt(name, part)

    def arrived(self, name: PartName, part: Part | None) -> None:
        """A copy came, or did not: whoever waits for it hears."""
        if part is None:
            self._copies.failed(name)
            self._without.add(name)
        else:
            self._copies.add(name, part)
        for found in self._waiting.pop(name, []):
            found(part)

    def find(self, name: PartName, found: Found) -> None:
        """Call `found` with a part: now where it is here, else when a neighbour gave it, or with
        None."""
        if (part := self._copies.get(name)) is not None or name not in self._where:
            found(part)
            return
        self._waiting.setdefault(name, []).append(found)
        self._copies.pull([name], self._where[name], self._neighbours())

    def is_read(self, name: PartName) -> bool:
        return self.parts.is_read(name)
