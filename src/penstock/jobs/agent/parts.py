"""Parts of states in an agent's memory: what one rank kept of one gang and step.

The loop's thread adds and removes them; gRPC threads read them meanwhile. A part's bytes do not
change while it is here. A name is never used twice, so whoever finds a part still here after it
read some of it knows that what it read is right.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

PartName = tuple[int, int, int]  # gang, step, rank


class Gone(Exception):
    """The part went while it was read."""


@dataclass(frozen=True)
class Part:
    """handle  of the memory; nbytes: of it that are the part's; seal: that it was kept with"""

    handle: int
    nbytes: int
    seal: dict[str, Any]


@dataclass
class Opened:
    """A part that is read: a descriptor of its own, and whether the part is still here."""

    parts: Parts
    name: PartName
    handle: int
    nbytes: int
    seal: dict[str, Any]

    def check(self) -> None:
        """Raises Gone: what was read last may be another state's."""
        if self.name not in self.parts.names():
            raise Gone(self.name)


class Parts:
    """Safe for threads. Owns no memory: descriptors are those of seats and copies."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._here: dict[PartName, Part] = {}
        self._read: dict[PartName, int] = {}  # by how many, now

    def add(self, name: PartName, part: Part) -> None:
        with self._guard:
            self._here[name] = part

    def remove(self, name: PartName) -> None:
        with self._guard:
            self._here.pop(name, None)

    def names(self) -> set[PartName]:
        with self._guard:
            return set(self._here)

    def is_read(self, name: PartName) -> bool:
        """Whether a neighbour reads it now."""
        with self._guard:
            return self._read.get(name, 0) > 0

    @contextmanager
    def reading(self, name: PartName) -> Iterator[Opened]:
        """Raises KeyError when it is not here."""
        with self._guard:
            part = self._here[name]
            handle = os.dup(part.handle)
            self._read[name] = self._read.get(name, 0) + 1
        try:
            yield Opened(self, name, handle, part.nbytes, part.seal)
        finally:
            os.close(handle)
            with self._guard:
                self._read[name] -= 1
                if not self._read[name]:
                    del self._read[name]
