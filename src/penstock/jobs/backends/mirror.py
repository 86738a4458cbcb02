"""Logs and signals of agents elsewhere, copied into this home as they grow.

`penstock runs logs`, `watch` and what forwards metrics read them here, as they do those of ranks
on this machine. Files only grow and each has one writer, so a copy goes on where it ends, whoever
made it: a controller that is started again has nothing to remember.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from penstock.base import log
from penstock.base.errors import PenstockError
from penstock.base.layout import Layout
from penstock.jobs.agent.giving import is_name
from penstock.signals import mark_closed

EVERY = 1.0  # seconds between two looks
_END = 2.0  # seconds for a look to end
_log = log.logger("controller")

Ask = Callable[[dict[str, int]], Iterator[dict[str, Any]]]


class Mirror:
    """Of one agent. Owns a thread, which ends by `close`, and the files that it writes.

    ask   {name: bytes that are here} -> what the agent has beyond them; see `jobs.rpc.Session`
    node  the agent's name, and no other's ever, which its logs get: "rank-0@NODE.log"
    """

    def __init__(self, layout: Layout, run_id: str, node: str, ask: Ask) -> None:
        self._logs, self._signals = layout.logs(run_id), layout.signals(run_id)
        self._node = node
        self._ask = ask
        self._have: dict[str, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)
        self._thread.start()

    def close(self, finally_look: bool) -> None:
        """finally_look  the agent is still there, and its ranks are not: take what they left"""
        self._over.set()
        self._thread.join(_END)
        if finally_look:
            while self._look():
                continue
        for name in self._have:
            if name.startswith("signals/"):
                with suppress(OSError):
                    mark_closed(self._path(name))

    def _follow(self) -> None:
        while not self._over.wait(EVERY):
            self._look()

    def _look(self) -> bool:
        """Whether there was anything new."""
        new = False
        try:
            for piece in self._ask(self._have):
                new |= self._write(piece)
        except (PenstockError, OSError) as error:  # gone, or a full disk: the next look shows
            _log.debug("files of %s: %s", self._node, error)
            return False
        return new

    def _write(self, piece: dict[str, Any]) -> bool:
        name, offset = piece["name"], int(piece["offset"])
        if not is_name(name):  # an agent writes nowhere else
            return False
        path = self._path(name)
        if name not in self._have:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._have[name] = path.stat().st_size if path.exists() else 0
            if self._have[name] > offset:
                return True  # a predecessor's copy: the next look goes on from its end
        data = base64.b64decode(piece["data"])
        with path.open("r+b" if path.exists() else "wb") as stream:
            stream.seek(offset)
            stream.write(data)
        self._have[name] = offset + len(data)
        return True

    def _path(self, name: str) -> Path:
        folder, _, file = name.partition("/")
        if folder == "signals":
            return self._signals / file
        own = Path(file)
        return self._logs / f"{own.stem}@{self._node}{own.suffix}"
