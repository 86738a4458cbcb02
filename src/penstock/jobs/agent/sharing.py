"""Shared buffers of ranks, the sidecars that read them, and states that stay in them.

A slot that a rank handed over belongs to its sidecar until that is done with it, also when the
rank is dead; a sidecar that dies is replaced, and its successor gets again what was not done. A
slot that was filled and sealed stays as it is until all seats hold a newer state: the memory tier.
An agent by itself sees what is whole; one of a fleet tells what it has, and is told what is to stay
(`elsewhere`). Ranks of an older gang are not listened to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock.base import log
from penstock.base.errors import DiskFull
from penstock.jobs.agent.children import Child, sidecar_of
from penstock.jobs.agent.elsewhere import Elsewhere
from penstock.jobs.agent.family import Family
from penstock.jobs.agent.held import Name, newest_common, not_wanted, useless
from penstock.jobs.agent.memory import budget, make_buffers
from penstock.jobs.agent.outbox import Outbox
from penstock.jobs.agent.parts import Part, PartName
from penstock.jobs.agent.seats import Seat

_LEAST = 2  # slots: one is persisted while the next is filled
_log = log.logger("agent")


class Sharing:
    """Used by the agent's one thread.

    ranks      those of the gang, now: rank -> child
    elsewhere  of an agent of a fleet: what it knows of states beyond its own seats
    """

    def __init__(
        self,
        spec: dict[str, Any],
        family: Family,
        outbox: Outbox,
        ranks: Callable[[], Mapping[int, Child]],
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._elsewhere = elsewhere
        self._spec = spec
        self._family = family
        self._outbox = outbox
        self._ranks = ranks
        self._sidecars: dict[str, Child] = {}
        self._seats: dict[int, Seat] = {}
        self._common: Name | None = None
        self._gang, self._world = 0, 0
        self._here: list[int] = []
        self._cost = 0.0  # seconds that the last kept state took from the slowest rank

    def new_gang(self, gang: int, world: int, here: Sequence[int]) -> None:
        """The slots stay. Of the states only what is whole does: it is what the gang may begin
        with. here: the ranks that this agent has"""
        self._gang, self._cost = gang, 0.0
        stays: set[Name | None] = {self._common}
        if self._elsewhere is not None:
            stays = set(self._elsewhere.stays)
        others = (world, list(here)) != (self._world, self._here)
        if world != self._world or (others and self._elsewhere is None):  # of other ranks
            stays = set()
        self._world, self._here = world, list(here)
        for seat in self._seats.values():
            seat.coming.clear()
            for name in seat.held.keys() - stays:
                self._forget(seat, name)
            if others and seat.rank not in here:
                self._move(seat)
        self._look_at_states()

    def _move(self, seat: Seat) -> None:
        """Nobody sits there any more; what it holds may be what the gang begins with."""
        for name in list(seat.held):
            part = self._part(seat, name)
            if self._elsewhere is not None and part is not None:
                handle = os.dup(part.handle)
                self._forget(seat, name)
                self._elsewhere.adopt((*name, seat.rank), replace(part, handle=handle))
        seat.retire()

    # -- sidecars -------------------------------------------------------------------------------

    def start_missing(self) -> None:
        """Start the sidecars that the spec names and that are not there."""
        for name in self._spec["sidecars"]:
            if name not in self._sidecars:
                self._start(name)

    def _start(self, name: str) -> None:
        child, theirs = sidecar_of(name, self._spec)
        self._sidecars[name] = child
        self._family.fork(child, [], theirs)
        for seat in self._seats.values():  # what its predecessor left undone
            self._share(child, seat)
            for message in seat.handed.values():
                self._family.tell(child, message)

    def sidecar_died(self, child: Child) -> None:
        """Start another, when there is an image to fork it; otherwise it comes with the image."""
        child.close()
        self._sidecars.pop(child.name, None)
        _log.warning("a sidecar died; starting it again", extra=log.facts(name=child.name))
        if self._family.image.ready:
            self._start(child.name)

    def _share(self, sidecar: Child, seat: Seat) -> None:
        slots = {**seat.retired, **seat.slots}
        if slots:
            who = {"rank": seat.rank, "slots": list(slots)}
            self._family.tell(sidecar, {"buffers": who}, tuple(slots.values()))

    # -- slots ----------------------------------------------------------------------------------

    def allocate(self, child: Child, body: dict[str, Any]) -> None:
        """Slots for one rank: those of its seat, where they are large enough; else new ones, in
        memory while the budget lasts, else on disk. With memory for `count` of them states are
        kept; two do to persist."""
        wanted = body["payload"]
        seat = self._seats.setdefault(child.rank, Seat(child.rank))
        if seat.size < int(wanted["least"]):
            try:
                self._make(seat, child, int(wanted["bytes"]), int(wanted["count"]))
            except DiskFull as error:
                self._family.tell(child, {"reply": {"id": body["id"], "error": error.as_dict()}})
                return
        answer = {
            "slots": list(seat.slots),
            "bytes": seat.size,
            "busy": seat.busy(),
            "handed": list(seat.handed),
            "keeps": seat.keeps,
            "in_memory": seat.in_memory,
        }
        reply = {"reply": {"id": body["id"], "payload": answer}}
        self._family.tell(child, reply, tuple(seat.slots.values()))

    def taken(self) -> int:
        """Memory that the slots take."""
        return sum(each.nbytes for each in list(self._seats.values()))

    def _make(self, seat: Seat, child: Child, size: int, count: int) -> None:
        """Raises DiskFull."""
        self._move(seat)
        taken = self.taken() + (self._elsewhere.nbytes if self._elsewhere is not None else 0)
        room = budget(self._spec["memory_bytes"])
        counts = [n for n in (count, _LEAST) if taken + size * n <= room]
        number = max(counts, default=0) or _LEAST
        folder = None if counts else Path(self._spec["scratch"])
        seat.slots = make_buffers(f"{child.gang}-{child.rank}", size, number, folder)
        seat.size, seat.in_memory, seat.keeps = size, bool(counts), bool(counts) and number > _LEAST
        if number < count or not counts:
            payload = {"wanted": size * count, "room": room, "disk": not counts}
            tier = {"kind": "memory-degraded", "payload": payload}
            self._outbox.put("tell", {"gang": child.gang, "rank": child.rank, **tier})
        for sidecar in self._sidecars.values():
            self._share(sidecar, seat)
        self._look_at_states()

    def handed(self, child: Child, body: dict[str, Any]) -> None:
        """A rank filled a slot for a sidecar."""
        seat = self._seat_of(child, body["slot"])
        if seat is None:
            return
        message = {"hand": {"gang": child.gang, "rank": child.rank, **body}}
        seat.handed[body["slot"]] = message
        seat.coming.discard(body["slot"])
        self._outbox.put("handed", {"gang": child.gang, "rank": child.rank, "step": body["step"]})
        if (sidecar := self._sidecars.get(body["to"])) is not None:
            self._family.tell(sidecar, message)

    def done(self, child: Child, body: dict[str, Any]) -> None:
        """A sidecar has a result, which goes to the controller, and is through with its slot, if it
        still had it."""
        self.released(body["rank"], body["slot"])
        self._outbox.put("sidecar", {"name": child.name, **body})

    def released(self, rank: int, slot: str) -> None:
        """A sidecar needs a slot no more: what was in it is on a disk."""
        seat = self._seats.get(rank)
        if seat is not None and seat.handed.pop(slot, None) is not None:
            self._say(seat, {"done": slot})
            if slot in seat.slots and seat.is_free(slot):
                self._say(seat, {"free": slot})
            seat.tidy()

    def _seat_of(self, child: Child, slot: str) -> Seat | None:
        """Of a rank that may still speak; None for one whose gang was replaced."""
        seat = self._seats.get(child.rank)
        if child.gang != self._gang or seat is None or slot not in seat.slots:
            _log.warning("a rank of an older gang is not listened to", extra=log.facts(slot=slot))
            return None
        return seat

    def _say(self, seat: Seat, message: dict[str, Any]) -> None:
        if (rank := self._ranks().get(seat.rank)) is not None:
            self._family.tell(rank, message)

    # -- states that stay -----------------------------------------------------------------------

    def kept(self, child: Child, body: dict[str, Any]) -> None:
        """A rank filled a slot and sealed it: it is whole, and stays."""
        seat = self._seat_of(child, body["slot"])
        if seat is None or not seat.keeps:
            return
        name = (child.gang, int(body["step"]))
        seat.held[name] = (body["slot"], body["seal"])
        if body.get("hands"):
            seat.coming.add(body["slot"])
        if self._elsewhere is not None and (part := self._part(seat, name)) is not None:
            self._elsewhere.parts.add((*name, seat.rank), part)
        self._cost = max(self._cost / 2, float(body["seconds"]))
        self._look_at_states()

    def _look_at_states(self) -> None:
        """Let go of what need not be kept, and tell the controller what all seats hold."""
        for rank, names in self._not_wanted().items():
            for name in names:
                seat = self._seats[rank]
                slot, _ = seat.held[name]
                self._forget(seat, name)
                if seat.is_free(slot):
                    self._say(seat, {"free": slot})
        common = newest_common(self._held())
        if common != self._common or self._elsewhere is not None:
            self._common = common
            self.tell_kept()

    def _not_wanted(self) -> dict[int, set[Name]]:
        held = self._held()
        if self._elsewhere is None:
            return useless(held)
        known = self._elsewhere
        return {
            rank: not_wanted(names, known.stays, [n for n in names if known.is_read((*n, rank))])
            for rank, names in held.items()
        }

    def _forget(self, seat: Seat, name: Name) -> None:
        """Before the slot may be filled again."""
        del seat.held[name]
        if self._elsewhere is not None:
            self._elsewhere.parts.remove((*name, seat.rank))

    @staticmethod
    def _part(seat: Seat, name: Name) -> Part | None:
        """What a seat holds of a state, as others read it; None when it cannot be read."""
        slot, seal = seat.held[name]
        nbytes = int(seal["nbytes"]) + int(seal["tail"])
        return Part(seat.slots[slot], nbytes, seal) if slot in seat.slots else None

    def _held(self) -> dict[int, list[Name]]:
        """By all seats that the gang has here, also those where nobody has asked for slots yet."""
        seats = [self._seats.get(rank, Seat(rank)) for rank in self._here]
        return {seat.rank: list(seat.held) for seat in seats}

    def tell_kept(self) -> None:
        """Also again, to a new controller."""
        if self._elsewhere is not None:
            self._outbox.replace("parts", self._elsewhere.told(self.cost()))
            return
        gang, step = self._common or (0, 0)
        body = {"gang": gang, "step": step, "world_size": self._world}
        self._outbox.replace("kept", body)

    def cost(self) -> float | None:
        """Seconds that a state takes from a rank; None while nothing can be kept."""
        room = all(seat.keeps for seat in self._seats.values())
        return self._cost if room else None

    def rescue(self) -> None:
        """Hand the newest state that all seats hold to the sidecar, without the ranks: there may
        be no time for their step to end."""
        if self._common is None:
            return
        gang, step = self._common
        (name,) = self._spec["sidecars"]
        for seat in (self._seats[rank] for rank in self._here):
            slot, seal = seat.held[self._common]
            if slot in seat.handed:
                continue  # it is on its way already
            body = {"to": name, "slot": slot, "step": step, "seal": seal}
            seat.handed[slot] = {"hand": {"gang": gang, "rank": seat.rank, **body}}
            if (sidecar := self._sidecars.get(name)) is not None:
                self._family.tell(sidecar, seat.handed[slot])

    def lend(self, child: Child, body: dict[str, Any]) -> None:
        """The slot of one seat for a state, to be read by any rank of the gang."""
        wanted = body["payload"]
        gang, step, rank = (int(wanted[key]) for key in ("gang", "step", "seat"))
        seat = self._seats.get(rank)
        part = None
        if seat is not None and (gang, step) in seat.held:
            part = self._part(seat, (gang, step))
        if part is None and self._elsewhere is not None:
            self._elsewhere.find((gang, step, rank), lambda found: self._lend(child, body, found))
        else:
            self._lend(child, body, part)

    def _lend(self, child: Child, body: dict[str, Any], part: Part | None) -> None:
        if part is None:
            self._family.tell(child, {"reply": {"id": body["id"], "payload": {}}})
            return
        payload = {"seal": part.seal, "bytes": os.fstat(part.handle).st_size}
        reply = {"reply": {"id": body["id"], "payload": payload}}
        self._family.tell(child, reply, (part.handle,))

    # -- states of a fleet ----------------------------------------------------------------------

    def stay(self, names: Sequence[Name]) -> None:
        """What the fleet wants to stay; the rest goes, but for the newest."""
        if self._elsewhere is not None:
            self._elsewhere.stay(names)
            self._look_at_states()

    def arrived(self, name: PartName, part: Part | None, said: dict[str, Any]) -> None:
        """A part from a neighbour; None: it did not come. said: how much room there was not"""
        if self._elsewhere is None:
            return
        self._elsewhere.arrived(name, part)
        if said:
            tier = {"kind": "memory-degraded", "payload": {**said, "copy": True, "disk": False}}
            self._outbox.put("tell", {"gang": self._gang, "rank": name[2], **tier})
        self.tell_kept()
