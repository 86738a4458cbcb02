"""Who listens on a port of this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Listener:
    """A process that listens on a port; `is_up`: it is `penstock up`."""

    pid: int
    name: str
    is_up: bool


def listener(port: int) -> Listener | None:
    """Who listens on a TCP port, as far as this user may see it."""
    try:
        for each in psutil.net_connections(kind="tcp"):
            mine = each.laddr and each.laddr.port == port and each.status == psutil.CONN_LISTEN
            if mine and each.pid is not None:
                process = psutil.Process(each.pid)
                return Listener(each.pid, process.name(), _is_up(process.cmdline()))
    except psutil.Error:
        return None
    return None


def _is_up(command: list[str]) -> bool:
    """
    >>> _is_up(["python3", ".venv/bin/penstock", "up"]), _is_up(["python3", "-m", "http.server"])
    (True, False)
    """
    said = " ".join(Path(part).name for part in command)
    return bool(re.search(r"\b(penstock|penstock\.cli\.main)\b.* up\b|-m penstock\.server\b", said))
