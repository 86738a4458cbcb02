"""The states that a fleet's agents have in memory: what a next gang may begin with, what stays.

The controller is told the newest that is whole. What stays with the agents is never less than that:
a state goes only when the controller knows of a newer one and that is safe (`whole`), so what the
controller chooses is there. Between two gangs nothing newer is told any more, for the same reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penstock.base import log
from penstock.jobs.agent.held import next_step
from penstock.jobs.backends.gang import Gang
from penstock.jobs.backends.whole import Name, Part, holders, missing, whole

_GIVEN_UP = 10.0  # seconds after which an announced state that did not become safe is passed over
_log = log.logger("controller")

Send = Callable[..., None]  # (agent, **message)


class States:
    """One fleet's. Used by the controller's one thread.

    send   to an agent by its name
    clock  seconds, monotonic
    """

    def __init__(self, send: Send, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._has: dict[str, set[Part]] = {}
        self._costs: dict[str, float | None] = {}  # of agents whose ranks ask when to keep
        self._world = 0
        self._first = 0  # gang: states of earlier ones are of another number of ranks
        self._since = 0  # gang: states of earlier ones are not told any more
        self._told: Name | None = None  # to the controller, or on its way there
        self._known: Name | None = None  # the controller has heard of it
        self._safe: Name | None = None  # the newest that was
        self._stays: dict[str, list[Name]] = {}  # what agents were told
        self._ordered: set[tuple[str, Part]] = set()
        self._without: set[Part] = set()  # parts of which there will be no copy
        self._announced = 0  # a step that all ranks are to keep
        self._passed_at: float | None = None  # when they all had got there

    # -- what happens ---------------------------------------------------------------------------

    def begin(self, gang: int, world: int) -> dict[str, Any]:
        """A gang is ordered. Returns what its agents must know to find the state that it may begin
        with: {"state": [gang, step], "where": {rank: agents}}; nothing when there is none."""
        if world != self._world:
            self._first, self._told, self._known, self._safe = gang, None, None, None
        self._world, self._since = world, gang
        self._announced, self._passed_at = 0, None
        self._costs.clear()
        self._ordered.clear()
        self._tell_what_stays(list(self._has))  # before the order to begin, which is sent next
        if self._known is None:
            return {}
        name = self._known
        where = {str(rank): holders(self._has, name, rank) for rank in range(world)}
        return {"state": list(name), "where": where}

    def adopt(self, gang: int, world: int) -> None:
        """A gang was found that began before this controller did."""
        self._world, self._since = world, 0

    def heard(self, agent: str, body: Mapping[str, Any]) -> None:
        """What an agent has now."""
        self._has[agent] = {(g, s, r) for g, s, r in body["parts"]}
        self._without |= {(g, s, r) for g, s, r in body["without"]}
        if body["paced"]:
            self._costs[agent] = body["cost"]

    def forget(self, agent: str) -> None:
        """It is lost."""
        for each in (self._has, self._costs, self._stays):
            each.pop(agent, None)
        self._ordered = {(to, part) for to, part in self._ordered if to != agent}

    def passed_on(self, body: Mapping[str, Any]) -> None:
        """The controller hears what `news` gave."""
        self._known = (body["gang"], body["step"]) if body["step"] else None

    # -- what follows ---------------------------------------------------------------------------

    def kept(self) -> tuple[int, int, int]:
        """(gang, step, ranks) of the state that the controller is to know of; zeros: none."""
        self._known = self._told
        return (*(self._told or (0, 0)), self._world)

    def news(self) -> dict[str, Any] | None:
        """What is to be told to the controller, once."""
        found = max(self._whole(), default=None)
        there = self._told is not None and self._told in self._whole()
        if found == self._told or (there and found is not None and found[0] < self._since):
            return None
        self._told = found
        gang, step = found or (0, 0)
        return {"gang": gang, "step": step, "world_size": self._world}

    def look(self, gang: Gang, agents: Sequence[str]) -> None:
        """Called often: copies are ordered, what need not stay may go, the next is announced.

        agents  all there are
        """
        for gone in set(self._has) - set(agents):
            self.forget(gone)
        ring = [name for name in gang.shares if name in agents]
        if self._told is not None and ring:
            self._copy(self._told, ring)
        self._tell_what_stays(agents)
        if len(gang.shares) > 1:
            self._announce(gang)

    def _tell_what_stays(self, agents: Sequence[str]) -> None:
        stays = sorted({name for name in (self._safe, self._known, self._told) if name is not None})
        for agent in agents:
            if self._stays.get(agent, []) != stays:
                self._stays[agent] = stays
                self._send(agent, stay={"states": stays})

    def _whole(self) -> list[Name]:
        if not self._world:  # whose they are is not known yet
            return []
        return [name for name in whole(self._has, self._world) if name[0] >= self._first]

    def _copy(self, name: Name, ring: list[str]) -> None:
        lacking = missing(self._has, name, self._world, ring, self._without)
        if not lacking and self._known == name:
            self._safe = name
            self._without = {part for part in self._without if part[:2] >= name}
        for to, source, parts in lacking:
            new = [part for part in parts if (to, part) not in self._ordered]
            if new:
                self._ordered |= {(to, part) for part in new}
                self._send(to, copy={"from": source, "parts": new})

    def _announce(self, gang: Gang) -> None:
        """When all ranks keep a state next, where they ask for it: not before the last is safe."""
        costs = [self._costs.get(name) for name in gang.shares]
        if None in costs or gang.slowest < max(1, self._announced) or not gang.pace:
            return
        now = self._clock()
        if self._passed_at is None:
            self._passed_at = now
        done = self._safe is not None and self._safe >= (gang.number, self._announced)
        if self._announced and not done and now - self._passed_at < _GIVEN_UP:
            return
        margin = next_step([0], gang.pace, max(cost for cost in costs if cost is not None))
        self._announced, self._passed_at = gang.agreed(margin), None
        for name in gang.shares:
            self._send(name, keep={"gang": gang.number, "at": self._announced})
