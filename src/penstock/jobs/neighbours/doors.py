"""The doors of a node's neighbours: a private file that its agent writes and its processes read.

It lies in the agent's runtime folder (mode 0700) and is readable by its user alone. A process knows
its place from the variable `neighbours.VARIABLE`, which holds no secret. It is replaced whole when
the fleet has other members, so whoever reads it sees one moment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from penstock.jobs.rpc import Door

FILE = "neighbours.json"


@dataclass(frozen=True)
class Neighbours:
    """mine   the name of this node's agent
    doors  of the other nodes' agents, by their names: for reading, and for nothing else
    """

    mine: str = ""
    doors: Mapping[str, Door] = field(default_factory=dict)


def as_message(neighbours: Neighbours) -> dict[str, Any]:
    """For the session between controller and agent, and for the file; see `told`."""
    rows = {name: asdict(door) for name, door in neighbours.doors.items()}
    return {"mine": neighbours.mine, "doors": rows}


def told(message: dict[str, Any]) -> Neighbours:
    """Raises KeyError, TypeError for what `as_message` did not make."""
    doors = {name: Door(**row) for name, row in message["doors"].items()}
    return Neighbours(message["mine"], doors)


def write(folder: Path, neighbours: Neighbours) -> None:
    """Replace the file in an agent's runtime folder. Raises OSError."""
    draft = folder / f"{FILE}.new"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(json.dumps(as_message(neighbours)))
    draft.replace(folder / FILE)


class Reading:
    """The file as it is now; read again only when it was replaced. Used under its user's lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._known = Neighbours()

    def now(self) -> Neighbours:
        """No doors while there is no file, or none that can be read."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            state = self._path.stat()
            if (seen := (state.st_ino, state.st_mtime_ns)) != self._seen:
                self._known, self._seen = told(json.loads(self._path.read_text())), seen
        return self._known
