"""What an agent's processes write into files, for a controller that does not see this disk.

Logs and segments of signals only grow, so what is new lies beyond the bytes that the other side
has. Of a segment, which is as long as it will ever be from the beginning, it is whole records.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock.base.layout import Layout
from penstock.signals import written

PIECE = 256 << 10  # bytes of one message
AT_ONCE = 2 << 20  # bytes of one file and call: a rank that prints without end holds up nobody
_LOG = re.compile(r"[A-Za-z0-9_.-]+\.(log|stacks)")
_SEGMENT = re.compile(r"\d+-(\d+)-\d+\.seg")


def is_name(name: str) -> bool:
    """Whether it is "logs/NAME" or "signals/NAME" of a file that an agent may give."""
    folder, _, file = name.partition("/")
    forms = {"logs": _LOG, "signals": _SEGMENT}
    return folder in forms and forms[folder].fullmatch(file) is not None


class Giving:
    """An agent's files by name. Used by gRPC threads; holds nothing.

    ranks  those that this agent has had: others may write into the same folders
    """

    def __init__(self, spec: dict[str, Any], ranks: set[int]) -> None:
        self._logs = Path(spec["logs"])
        home = spec.get("node", {}).get("home")
        self._signals = Layout(Path(home)).signals(spec["run_id"]) if home else None
        self._ranks = ranks

    def beyond(self, have: dict[str, int]) -> Iterator[dict[str, Any]]:
        """{"name", "offset", "data": base64} of what is new. have: name -> bytes"""
        for name, path in self._files():
            at, left = have.get(name, 0), AT_ONCE
            for data in _new(path, at):
                if left <= 0:
                    break
                left -= len(data)
                yield {"name": name, "offset": at, "data": base64.b64encode(data).decode()}
                at += len(data)

    def _files(self) -> Iterator[tuple[str, Path]]:
        for path in sorted(self._logs.glob("*")):
            if _LOG.fullmatch(path.name):
                yield f"logs/{path.name}", path
        for path in sorted(self._signals.glob("*")) if self._signals is not None else ():
            match = _SEGMENT.fullmatch(path.name)
            if match is not None and int(match[1]) in self._ranks:
                yield f"signals/{path.name}", path


def _new(path: Path, at: int) -> Iterator[bytes]:
    try:
        if path.suffix == ".seg":
            data = path.read_bytes()
            data = data[at : written(data, at)]
            yield from (data[n : n + PIECE] for n in range(0, len(data), PIECE))
            return
        with path.open("rb") as stream:
            stream.seek(at)
            while data := stream.read(PIECE):
                yield data
    except FileNotFoundError:
        return
