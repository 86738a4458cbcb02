"""Ending everything that a rank started, not only the rank.

A rank leads a session of its own. What it started and did not detach is found by that session's
id, also after the rank itself is gone: the kernel gives no new process a pid that is still some
session's id.
"""

from __future__ import annotations

import signal
from pathlib import Path

from penstock.base.process import kill_quietly


def members(session: int) -> list[int]:
    """Pids of the processes in a session, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append(int(entry.name))
    return found


def end_session(session: int) -> None:
    """SIGKILL for every member. Only for sessions that this agent's image made."""
    for pid in members(session):
        kill_quietly(pid, signal.SIGKILL)
