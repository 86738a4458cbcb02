"""Which machine a gang's first fault is put down to, and what follows from too many of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.base import log
from penstock.jobs.backends.faults import Faults
from penstock.jobs.backends.gang import Gang
from penstock.jobs.backends.member import Member

_log = log.logger("controller")


class Blame:
    """One fleet's. Used by its controller's one thread.

    members    the fleet's agents by name
    set_aside  nothing more is to be on the machine of this address
    tell       the controller
    """

    def __init__(
        self,
        members: dict[str, Member],
        set_aside: Callable[[str], None],
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        self._members, self._set_aside, self._tell = members, set_aside, tell
        self._faults = Faults()

    def exited(self, gang: Gang, member: Member, body: dict[str, Any]) -> None:
        """The first that dies of its own is a fault of the machine's; the others follow it."""
        if gang.is_it(body) and body["signal"] and not (body["told"] or body["oom"]):
            self.note(gang, member, f"rank {body['rank']} died by {body['signal']}")

    def hung(self, gang: Gang, member: Member, body: dict[str, Any]) -> None:
        """An agent tells of a rank that may be another's."""
        if gang.is_it(body):
            guilty = next((m for m in self._members.values() if body["rank"] in m.ranks), member)
            self.note(gang, guilty, f"rank {body['rank']} hung")

    def note(self, gang: Gang, member: Member, what: str) -> None:
        """A machine that fails again and again is set aside, where there are others."""
        host = member.place.door.host
        if gang.faulty or gang.killed:
            return
        gang.faulty = True
        others = {each.place.door.host for each in self._members.values()} - {host}
        if (why := self._faults.note(host, what, others)) is not None:
            _log.error("a machine is set aside", extra=log.facts(host=host, why=why))
            self._set_aside(host)
            self._tell({"aside": {"gang": gang.number, "host": host, "why": why}})
