"""Kills and damages a training on purpose, at the steps that its plan names.

What it did is recorded as events of the run ("demo.killed", "demo.damaged"), so that the figures
can be told again later from the record alone.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable
from typing import Any

from penstock.base import process
from penstock.checkpoints import read_manifest
from penstock.home.local import LocalHome
from penstock.records import Event

KILL_AT = 180  # after the checkpoint of this step, one rank
DAMAGE_AT = 300  # after the checkpoint of this step, a flipped bit, and all ranks
_CHUNK = 4


class Saboteur:
    """Feed it the run's events; it acts once at each place of its plan. No thread of its own."""

    def __init__(self, home: LocalHome, tell: Callable[[str, dict[str, Any]], None]) -> None:
        self._home = home
        self._tell = tell
        self._pids: dict[int, int] = {}
        self._done: set[str] = set()

    def hear(self, event: Event) -> None:
        if event.kind == "gang.started":
            self._pids = {int(rank): pid for rank, pid in event.body["pids"].items()}
        elif event.kind == "checkpoint.committed" and self._pids:
            step = event.body["step"]
            if step >= KILL_AT and "kill" not in self._done:
                self._done.add("kill")
                self._kill_one(event.subject)
            elif step >= DAMAGE_AT and "damage" not in self._done:
                self._done.add("damage")
                self._damage(event.subject)

    def _kill_one(self, subject: str) -> None:
        rank, pid = max(self._pids.items())
        self._pids = {}
        killed_at = time.time()
        process.kill_quietly(pid, signal.SIGKILL)
        self._record(subject, "demo.killed", {"rank": rank, "pid": pid, "at": killed_at})

    def _damage(self, subject: str) -> None:
        """Freeze the ranks, damage the newest checkpoint, kill them: nothing can come between."""
        pids, self._pids = self._pids, {}
        for pid in pids.values():
            process.kill_quietly(pid, signal.SIGSTOP)
        step = self._settled(subject)
        self._flip(subject, step)
        body = {"step": step, "chunk": _CHUNK, "pids": list(pids.values()), "at": time.time()}
        self._record(subject, "demo.damaged", body)
        for pid in pids.values():
            process.kill_quietly(pid, signal.SIGKILL)

    def _settled(self, subject: str) -> int:
        """The newest committed step once nothing more is on its way."""
        newest, since = -1, time.monotonic()
        while time.monotonic() - since < 0.2:
            with self._home.stores.meta.read() as db:
                step = db.checkpoints(subject.removeprefix("run/"))[0].step
            if step != newest:
                newest, since = step, time.monotonic()
            time.sleep(0.01)
        return newest

    def _flip(self, subject: str, step: int) -> None:
        stores = self._home.stores
        with stores.meta.read() as db:
            row = next(c for c in db.checkpoints(subject.removeprefix("run/")) if c.step == step)
        part = read_manifest(stores.blobs, row.digest).parts[0]
        chunk = part.chunks[min(_CHUNK, len(part.chunks) - 1)]
        path = stores.blobs.path(part.blob)
        assert path is not None, "the demo damages a local file"
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
        with path.open("r+b") as stream:
            stream.seek(chunk.offset + chunk.nbytes // 2)
            byte = stream.read(1)[0]
            stream.seek(-1, os.SEEK_CUR)
            stream.write(bytes([byte ^ 1]))

    def _record(self, subject: str, kind: str, body: dict[str, Any]) -> None:
        with self._home.stores.meta.write() as tx:
            tx.event(subject, kind, body)
        self._tell(kind, body)
