"""Agents on several machines for the workers of a map, which do not depend on each other.

They begin as there is room, and others join them. When an agent is lost, the controller is told
which workers went with it, so that what they had is done by others; they begin again where there is
room, now or later. What is left of a dead controller's workers is ended: they keep nothing.
"""

from __future__ import annotations

from typing import Any

from penstock.base import log
from penstock.jobs.backends.fleet import Fleet
from penstock.jobs.backends.gang import Gang
from penstock.jobs.backends.member import Member

_log = log.logger("controller")


class Crew(Fleet):
    """See the module, `Fleet` and `port.Agents`."""

    _joined = True
    _waiting: tuple[int, ...] = ()  # workers that have no agent
    _over: str | None = None  # how the first of them took its leave: there is nothing left to do

    def find(self, generation: int) -> bool:
        self._generation = generation
        self._places.owned_by(generation)
        if self._places.is_there():
            self.end()
        return False

    def _send_start(self, order: dict[str, Any]) -> None:
        self._gang, self._over = Gang.ordered(order), None
        self._waiting = tuple(range(self._gang.world))
        for member in self._members.values():
            member.ranks, member.gone = [], True
        self._supply.stop()
        if not self._begin():
            self._supply.want(self._gang)

    def _begin(self) -> bool:
        """Workers without an agent begin where there is room. False: none has one."""
        if self._gang.killed or self._over:
            return True
        for member in self._members.values():
            free = 0 if member.leaving else member.place.slots - len(member.ranks)
            here, self._waiting = self._waiting[:free], self._waiting[free:]
            if here:
                self._join(member, list(here))
        return bool(self._gang.shares)

    def _join(self, member: Member, ranks: list[int]) -> None:
        gang, first = self._gang, not member.ranks
        member.ranks, member.gone = [*member.ranks, *ranks], False
        gang.shares[member.name] = member.ranks
        gang.told.add(member.name)
        part = {**(gang.order or {}), "ranks": member.ranks}
        if first:
            member.send(start=part)
            return
        for rank in ranks:
            member.send(restart={"rank": rank, "order": part})

    def _look(self) -> None:
        super()._look()
        if self._waiting and self._members and not self._gang.killed:
            self._begin()

    # -- what agents say ------------------------------------------------------------------------

    def _on_started(self, member: Member, body: dict[str, Any], _: str) -> None:
        if self._gang.is_it(body):
            member.gone = False  # its only worker may have been replaced
            pids = self._gang.begun(body["pids"])
            self._out.append({"started": {"gang": body["gang"], "pids": pids}})

    def _on_tell(self, member: Member, body: dict[str, Any], kind: str) -> None:
        self._pass_on(member, body, kind)
        if self._gang.is_it(body) and body["kind"] in ("finished", "drained"):
            self._over = body["kind"]
            self._dismiss()

    def _dismiss(self) -> None:
        """Nothing is left to do, also for workers that have no agent."""
        waiting, self._waiting = self._waiting, ()
        for rank in waiting:
            body = {"kind": self._over, "payload": {"units": 0}}
            self._out.append({"tell": {"gang": self._gang.number, "rank": rank, **body}})

    # -- losing ---------------------------------------------------------------------------------

    def _lose(self, member: Member, why: str, silent: bool = False) -> None:
        """Give it up; the others go on."""
        _log.error("an agent is lost", extra=log.facts(node=member.name, why=why))
        self._forget(member, silent)
        self._gang.shares.pop(member.name, None)
        if self._gang.killed:
            self._tell_if_gone()
            return
        if not member.ranks:
            return
        about = {"node": member.name, "host": member.place.door.host, "why": why}
        self._out.append({"unplaced": {"gang": self._gang.number, "ranks": member.ranks, **about}})
        self._waiting = tuple(sorted({*self._waiting, *member.ranks}))
        if self._over:
            self._dismiss()
        elif not self._begin() and not self._supply.is_wanting():
            self._supply.want(self._gang)
