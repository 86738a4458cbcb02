"""Agents for a gang: as many as it needs now, and in time those for a larger one.

Whoever finds them may take long, so that is done in threads (`placing`), which tell by the fleet's
own queue; what becomes of what they tell is decided here, in the controller's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from penstock.base import log
from penstock.base.errors import (
    AccessDenied,
    BadInput,
    LeaseLost,
    MissingExtra,
    PenstockError,
    Unavailable,
)
from penstock.jobs.backends.gang import Gang
from penstock.jobs.backends.member import Member
from penstock.jobs.backends.places import Place, Places, Wish
from penstock.jobs.backends.placing import Leaving, Placing
from penstock.jobs.rpc import Message

_GROWTH = 2.0  # seconds between two attempts to have more places
_TRIES = 3  # agents that cannot be reached, failures of the engine, before it is given up
_PAUSE = 3.0  # seconds after a failure
_AWAY = 120.0  # seconds for an engine that had places before: its head may be started again
_log = log.logger("controller")


class Supply:
    """One fleet's.

    members  its agents by name, which are added to here
    attach   speak to an agent: raises Unavailable, LeaseLost
    tell     into the fleet's queue: (source, message); from any thread
    joined   the members of a gang begin when they can, and others join them
    spares   agents that stand by on other machines
    Owns the threads that look for places, and for those that are taken away.
    """

    def __init__(
        self,
        places: Places,
        members: dict[str, Member],
        attach: Callable[[Place], Member],
        tell: Callable[[object, Message], None],
        joined: bool = False,
        spares: int = 0,
    ) -> None:
        self._places, self._members, self._attach = places, members, attach
        self._put = tell
        self._joined = joined
        self._spares = spares
        self._avoid: set[str] = set()  # addresses of machines that are set aside
        self._placing: Placing | None = None  # for the gang that is wanted
        self._growing: Placing | None = None  # beside a gang, for a larger one
        self._leaving: Leaving | None = None
        self._next_growth = 0.0
        self._unreachable = 0  # agents, one after the other
        self._failures = 0  # of the engine, one after the other
        self._failing_since = 0.0
        self._closed = False

    def room(self) -> int:
        """Ranks for which there are agents that could begin at once."""
        ready = [each.place for each in self._members.values() if each.is_of_use()]
        return sum(each.slots for each in ready or self.staying())  # at the beginning none is

    def staying(self) -> list[Place]:
        """Of agents that are not about to be taken away."""
        return [each.place for each in self._members.values() if not each.leaving]

    # -- wanting --------------------------------------------------------------------------------

    def want(self, gang: Gang) -> None:
        """Places for the gang: "placed", "short", "away" or "broken" follows."""
        have, avoid = tuple(self.staying()), tuple(self._avoid)
        waits = gang.number > 1  # a gang before it had its places
        wish = Wish(gang.world, gang.sizes[0], have, waits=waits, avoid=avoid)
        if self._joined:
            wish = replace(wish, moment=0.0)
        after = _PAUSE if self._failures else 0.0
        self._placing = Placing(self._places, wish, self._tell, after)

    def look(self, gang: Gang) -> None:
        """Called often while a gang runs: have places for the largest that there may be."""
        if self._leaving is None:
            self._leaving = Leaving(self._places, self._tell)
        now = time.monotonic()
        if self._closed or self._growing is not None or now < self._next_growth:
            return
        if any(each.leaving and each.ranks for each in self._members.values()):
            return  # what is asked for then would be in the place of ranks that still save
        self._next_growth = now + _GROWTH
        most, have = gang.sizes[1], tuple(self.staying())
        more = sum(each.slots for each in have) + 1
        wish = Wish(most, more, have, once=True, avoid=tuple(self._avoid))
        if wish.slots < most:
            self._growing = Placing(self._places, wish, self._tell)
        elif len(self._idle()) < self._spares:
            self._growing = Placing(self._places, self._spare(gang, wish), self._tell)

    def _idle(self) -> list[Member]:
        return [each for each in self._members.values() if not each.ranks and not each.leaving]

    def _spare(self, gang: Gang, wish: Wish) -> Wish:
        """One more, for as many ranks as any has now, where there is none yet."""
        size = wish.slots + max(len(ranks) for ranks in gang.shares.values())
        hosts = {each.place.door.host for each in self._members.values()}
        return replace(wish, ranks=size, least=size, avoid=tuple(self._avoid | hosts))

    def set_aside(self, host: str) -> None:
        """A machine that nothing more should be on; what is there is used no more."""
        self._avoid.add(host)
        for each in self._members.values():
            each.leaving |= each.place.door.host == host

    def is_kept(self, member: Member, gang: Gang) -> bool:
        """Whether an agent that the gang does not need stays: for a larger gang, or as a spare."""
        if member.leaving:
            return False
        return gang.is_elastic or member in self._idle()[: self._spares]

    def is_wanting(self) -> bool:
        return self._placing is not None

    def stop(self) -> None:
        """Want nothing any more."""
        for each in (self._placing, self._growing):
            if each is not None:
                each.cancel()
        self._placing = self._growing = None
        self._unreachable = self._failures = 0

    def stop_growing(self) -> None:
        if self._growing is not None:
            self._growing.cancel()
            self._growing = None

    def open(self) -> None:
        """After `close`, for other agents."""
        self._closed, self._leaving = False, None

    def close(self) -> None:
        self.stop()
        self._closed = True
        if self._leaving is not None:
            self._leaving.close()

    def give_back(self, name: str) -> None:
        """An agent that nobody needs."""
        member = self._members.pop(name)
        member.close(finally_look=True)
        self._places.drop(member.place)

    # -- hearing --------------------------------------------------------------------------------

    def _tell(self, source: object, kind: str, what: Any) -> None:
        self._put(source, {kind: what})

    def is_mine(self, source: object) -> bool:
        return isinstance(source, Placing | Leaving)

    def hear(self, source: object, message: Message, gang: Gang) -> Message | None:
        """What that means to whoever wants the gang: {"placed"} when all that were found are
        members, or something for the controller."""
        kind, what = next(iter(message.items()))
        if kind == "leaving":
            return self._on_leaving(what, gang)
        if source is self._growing:
            self._on_growth(kind, what)
            return None
        if source is not self._placing:
            self._drop_unused(what if kind == "placed" else [])
            return None
        if kind == "waits":
            return {"waits": {"gang": gang.number, **what}}
        self._placing = None
        if kind == "failed":
            return self._on_failure(what, gang)
        self._failures = 0
        return self._on_placed(what, gang)

    def _on_failure(self, error: PenstockError, gang: Gang) -> Message | None:
        """What cannot be meant ends the run; what is not there may come back. When it does not, a
        run that was under way is left to whoever goes on with it."""
        told = {"error": error.as_dict()}
        if isinstance(error, BadInput | AccessDenied | MissingExtra):
            return {"broken": told}
        self._failures += 1
        if self._failures == 1:
            self._failing_since = time.monotonic()
        if gang.number == 1 and self._failures > _TRIES:
            return {"broken": told}
        if gang.number > 1 and time.monotonic() - self._failing_since > _AWAY:
            return {"away": told}
        _log.warning("no places yet: %s", error)
        self.want(gang)
        return None

    def _on_placed(self, found: list[Place], gang: Gang) -> Message | None:
        reached = [self._is_attached(place) for place in found]
        if self._unreachable > _TRIES and gang.number == 1:  # later it may have been cut off
            return {"broken": {"error": _unreachable(found[-1]).as_dict()}}
        room = sum(each.slots for each in self.staying())
        if self._joined and room:
            return {"placed": {}}
        if all(reached) and gang.sizes[0] <= room < gang.world:
            return {"short": {"gang": gang.number, "room": room}}
        if room < gang.world:
            self.want(gang)
            return None
        return {"placed": {}}

    def _on_growth(self, kind: str, what: Any) -> None:
        if kind == "failed":
            _log.info("no more places: %s", what)
        elif kind == "placed":
            for place in what:
                self._is_attached(place)
        if kind != "waits":
            self._growing = None

    def _on_leaving(self, found: dict[str, float], gang: Gang) -> Message | None:
        """Machines that are about to be taken away: ranks save, and go on elsewhere."""
        told = None
        for name, seconds in found.items():
            member = self._members.get(name)
            if member is None or member.leaving:
                continue
            member.leaving = True
            if member.ranks:
                about = {"node": name, "host": member.place.door.host, "seconds": seconds}
                told = {"leaving": {"gang": gang.number, **about}}
        return told

    def _is_attached(self, place: Place) -> bool:
        """Whether the agent is a member now. One that died already, or cannot be reached, is given
        back."""
        if place.name in self._members:
            return True
        try:
            self._members[place.name] = self._attach(place)
        except LeaseLost:
            raise
        except PenstockError as error:
            _log.warning("an agent cannot be reached: %s", error)
            self._places.drop(place, silent=True)
            self._unreachable += 1
            return False
        self._unreachable = 0
        return True

    def _drop_unused(self, found: list[Place]) -> None:
        """What came after it was cancelled."""
        for place in found:
            if place.name not in self._members:
                self._places.drop(place)


def _unreachable(place: Place) -> Unavailable:
    return Unavailable(
        f"agents start, but this machine cannot reach them at {place.door.host}",
        "Does a firewall stand between them? Any port is used; run the controller on a node of the "
        "cluster otherwise.",
        host=place.door.host,
    )
