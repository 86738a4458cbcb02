"""One agent per run at a time, and the newest wins.

A controller that dies right after it started an agent leaves one that nobody knows yet, and the
next controller starts another. Both would use one socket and one `processes.json`. So an agent
first takes the seat: a lock on `agent.lock`, held until it dies, with its name and generation in
the file. Whoever finds an older holder there kills it; whoever finds that the spec or the holder
is newer than itself ends. Owner of the lock: the agent; the kernel frees it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from penstock.base import log, process
from penstock.base.errors import Unavailable

_PATIENCE = 10.0  # seconds for a killed holder to be gone
_log = log.logger("agent")


class Superseded(Exception):
    """Another agent is wanted; this one has nothing to do."""


def take(runtime: Path, generation: int) -> int:
    """The descriptor that holds the seat. Raises Superseded, or Unavailable when the older
    holder cannot be killed."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            seat = os.open(runtime / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise Superseded("the run ended") from None
        if _locked(seat) and _is_there(seat, runtime):
            _refuse_if_old(runtime, generation)
            os.ftruncate(seat, 0)
            row = {"holder": str(process.Identity.mine()), "generation": generation}
            os.pwrite(seat, json.dumps(row).encode(), 0)
            return seat
        _evict(seat, generation)
        os.close(seat)
        if time.monotonic() > deadline:
            raise Unavailable(
                "an older agent of this run does not let go", "See agent.log; kill it, run again."
            )
        time.sleep(0.002)


def _locked(seat: int) -> bool:
    try:
        fcntl.flock(seat, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_there(seat: int, runtime: Path) -> bool:
    """The file may have gone with its folder between opening and locking it."""
    try:
        return os.fstat(seat).st_ino == (runtime / "agent.lock").stat().st_ino
    except FileNotFoundError:
        return False


def _refuse_if_old(runtime: Path, generation: int) -> None:
    try:
        wanted = int(json.loads((runtime / "agent-spec.json").read_text())["generation"])
    except FileNotFoundError:
        raise Superseded("the run ended") from None
    if wanted != generation:
        raise Superseded(f"generation {wanted} is wanted, not {generation}")


def _evict(seat: int, generation: int) -> None:
    """Kill an older holder. One that has not written its name yet is looked at again."""
    try:
        row: dict[str, Any] = json.loads(os.pread(seat, 4096, 0))
    except json.JSONDecodeError:
        return
    if row["generation"] > generation:
        raise Superseded(f"an agent of generation {row['generation']} is there")
    holder = process.Identity.parse(row["holder"])
    if not holder.is_dead():
        _log.warning("an older agent is there; ending it", extra=log.facts(pid=holder.pid))
        process.kill_quietly(holder.pid, signal.SIGKILL)
