"""Shared buffers of ranks, and the sidecars that read them.

A buffer that a rank handed over belongs to its sidecar until that is done with it, also when the
rank is dead; a sidecar that dies is replaced, and its successor gets again what was not done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from penstock.base import log
from penstock.base.errors import DiskFull
from penstock.jobs.agent.children import Child, sidecar_of
from penstock.jobs.agent.family import Family
from penstock.jobs.agent.memory import budget, make_buffers
from penstock.jobs.agent.outbox import Outbox

_log = log.logger("agent")


class Sharing:
    """Used by the agent's one thread.

    ranks  those of the gang, now: rank -> child
    """

    def __init__(
        self,
        spec: dict[str, Any],
        family: Family,
        outbox: Outbox,
        ranks: Callable[[], Mapping[int, Child]],
    ) -> None:
        self._spec = spec
        self._family = family
        self._outbox = outbox
        self._ranks = ranks
        self._sidecars: dict[str, Child] = {}
        self._leaving: list[Child] = []  # dead ranks whose handed buffers a sidecar still reads
        self._in_memory = 0

    def new_gang(self) -> None:
        """The ranks of the gang that comes have no buffers yet."""
        self._in_memory = 0

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
        for rank in [*self._leaving, *self._ranks().values()]:  # what its predecessor left undone
            self._share(child, rank)
            for message in rank.handed.values():
                self._family.tell(child, message)

    def sidecar_died(self, child: Child) -> None:
        """Start another, when there is an image to fork it; otherwise it comes with the image."""
        child.close()
        self._sidecars.pop(child.name, None)
        _log.warning("a sidecar died; starting it again", extra=log.facts(name=child.name))
        if self._family.image.ready:
            self._start(child.name)

    # -- buffers --------------------------------------------------------------------------------

    def allocate(self, child: Child, body: dict[str, Any]) -> None:
        """Shared buffers for one rank: in memory while the budget lasts, else on disk."""
        size, count = int(body["payload"]["bytes"]), int(body["payload"]["count"])
        room = budget(self._spec["memory_bytes"])
        in_memory = self._in_memory + size * count <= room
        child.drop_buffers()
        folder = None if in_memory else Path(self._spec["scratch"])
        try:
            child.buffers = make_buffers(f"{child.gang}-{child.rank}", size, count, folder)
        except DiskFull as error:
            self._family.tell(child, {"reply": {"id": body["id"], "error": error.as_dict()}})
            return
        self._in_memory += size * count if in_memory else 0
        if not in_memory:
            tier = {"kind": "memory-degraded", "payload": {"wanted": size * count, "room": room}}
            self._outbox.put("tell", {"gang": child.gang, "rank": child.rank, **tier})
        for sidecar in self._sidecars.values():
            self._share(sidecar, child)
        answer = {"slots": list(child.buffers), "bytes": size, "in_memory": in_memory}
        reply = {"reply": {"id": body["id"], "payload": answer}}
        self._family.tell(child, reply, tuple(child.buffers.values()))

    def _share(self, sidecar: Child, rank: Child) -> None:
        if rank.buffers:
            who = {"gang": rank.gang, "rank": rank.rank, "slots": list(rank.buffers)}
            self._family.tell(sidecar, {"buffers": who}, tuple(rank.buffers.values()))

    def handed(self, child: Child, body: dict[str, Any]) -> None:
        """A rank filled a shared buffer for a sidecar."""
        message = {"hand": {"gang": child.gang, "rank": child.rank, **body}}
        child.handed[body["slot"]] = message
        self._outbox.put("handed", {"gang": child.gang, "rank": child.rank, "step": body["step"]})
        if (sidecar := self._sidecars.get(body["to"])) is not None:
            self._family.tell(sidecar, message)

    def done(self, child: Child, body: dict[str, Any]) -> None:
        """A sidecar is through with a buffer; its result goes to the controller."""
        for owner in [*self._leaving, *self._ranks().values()]:
            if (owner.gang, owner.rank) == (body["gang"], body["rank"]):
                owner.handed.pop(body["slot"], None)
                self._family.tell(owner, {"free": body["slot"]})
                if owner.dead:
                    owner.drop_buffers()
        self._leaving = [gone for gone in self._leaving if gone.handed]
        self._outbox.put("sidecar", {"name": child.name, **body})

    def rank_died(self, child: Child) -> None:
        """What it had handed over is still read."""
        if child.handed:
            self._leaving.append(child)
