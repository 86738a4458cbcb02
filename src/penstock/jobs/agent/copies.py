"""Parts of states that this agent's ranks did not keep: copies of its neighbours', and those that a
next gang's ranks ask for.

They are pulled by threads, one for each order, which end with it; what one has pulled becomes the
loop's by a message. A copy that finds no room in memory, or does not come, is left out and said.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from penstock.base import log
from penstock.base.errors import Unavailable
from penstock.jobs.agent.held import Name
from penstock.jobs.agent.memory import memory_buffer
from penstock.jobs.agent.parts import Part, PartName, Parts
from penstock.jobs.neighbours.doors import Neighbours
from penstock.jobs.neighbours.reads import NotThere, NotYet, Reader

_log = log.logger("agent")


@dataclass
class NoMemory(Exception):
    """There is no room for a copy."""

    wanted: int
    room: int


class Copies:
    """Used by the agent's one thread, but for what its threads pull. Owns the copies' memory.

    parts   where neighbours and the loop find them
    room    bytes that copies may take now, these included; in any thread
    arrived  into the loop: a part that was pulled, or why it was not; from a thread
    """

    def __init__(
        self,
        parts: Parts,
        room: Callable[[], int],
        arrived: Callable[[PartName, Part | None, dict[str, Any]], None],
    ) -> None:
        self._parts = parts
        self._room = room
        self._arrived = arrived
        self._here: dict[PartName, Part] = {}
        self._under_way: set[PartName] = set()
        self._guard = threading.Lock()
        self._taken = 0  # bytes, those that are being filled included

    @property
    def nbytes(self) -> int:
        """Memory that they take."""
        with self._guard:
            return self._taken

    def get(self, name: PartName) -> Part | None:
        return self._here.get(name)

    def pull(self, names: Sequence[PartName], sources: Sequence[str], told: Neighbours) -> None:
        """Have these, from the first of the sources that gives them; `arrived` tells of each."""
        wanted = [n for n in names if n not in self._under_way and n not in self._here]
        if not wanted:
            return
        self._under_way.update(wanted)
        readers = [Reader(told.doors[each]) for each in sources if each in told.doors]
        work = threading.Thread(
            target=self._work, args=(wanted, readers), name="copying", daemon=True
        )
        work.start()

    def add(self, name: PartName, part: Part) -> None:
        """It arrived, or was a seat's that is no more: this owns its memory now."""
        self._under_way.discard(name)
        self._here[name] = part
        self._parts.add(name, part)

    def adopt(self, name: PartName, part: Part) -> None:
        """The same of memory that was not counted here."""
        self._take(part.nbytes)
        self.add(name, part)

    def failed(self, name: PartName) -> None:
        """It did not arrive."""
        self._under_way.discard(name)

    def keep_only(self, names: Collection[Name]) -> None:
        """Let go of what is of another state."""
        for name in [each for each in self._here if each[:2] not in names]:
            part = self._here.pop(name)
            self._parts.remove(name)
            os.close(part.handle)  # whoever reads it has a descriptor of its own
            self._take(-part.nbytes)

    # -- threads --------------------------------------------------------------------------------

    def _work(self, names: list[PartName], readers: list[Reader]) -> None:
        try:
            for name in names:
                self._arrived(name, *self._pulled(name, readers))
        finally:
            for reader in readers:
                reader.close()

    def _pulled(self, name: PartName, readers: list[Reader]) -> tuple[Part | None, dict[str, Any]]:
        """The part, or what is to be said."""
        why = "no agent that has it is known"
        for reader in readers:
            try:
                return self._read(name, reader), {}
            except NoMemory as error:
                return None, {"wanted": error.wanted, "room": error.room}
            except (NotThere, NotYet):
                why = "it is not there any more"
            except (Unavailable, OSError, KeyError, TypeError, ValueError) as error:
                why = repr(error)  # the last ones: it says what no agent says
        _log.warning("a part of a state was not copied", extra=log.facts(part=name, why=why))
        return None, {}

    def _read(self, name: PartName, reader: Reader) -> Part:
        """Raises NoMemory, NotThere, NotYet, Unavailable, OSError."""
        about, pieces = reader.begin({"state": list(name)})
        size, seal = int(about["bytes"]), dict(about["seal"])
        self._reserve(size)
        handle = -1
        try:
            handle = memory_buffer("copy-{}-{}-{}".format(*name), size)
            at = 0
            for piece in pieces:
                at += os.pwrite(handle, piece, at)
        except BaseException:
            self._take(-size)
            if handle >= 0:
                with suppress(OSError):
                    os.close(handle)
            raise
        return Part(handle, size, seal)

    def _reserve(self, size: int) -> None:
        room = self._room()
        with self._guard:
            if self._taken + size > room:
                raise NoMemory(size, max(0, room - self._taken))
            self._taken += size

    def _take(self, size: int) -> None:
        with self._guard:
            self._taken += size
