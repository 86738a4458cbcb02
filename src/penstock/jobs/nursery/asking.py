"""How a controller gets an agent from its script's nursery, where there is one."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from penstock.jobs.wire import Channel, Closed

SOCKET = "warm.sock"  # in the run's runtime folder, which is private; goes with the folder
_PATIENCE = 60.0  # seconds; a nursery that still imports torch answers when it has


def surroundings(spec: dict[str, Any]) -> dict[str, Any]:
    """What an image depends on, of a run's or an agent's spec."""
    return {key: spec[key] for key in ("preload", "image_env", "cwd")}


def ask_for_agent(runtime: Path, spec: dict[str, Any], spec_file: Path, log: Path) -> bool:
    """Whether a nursery forked an agent for the spec. False: there is none, it cannot, or it does
    not answer; it then forks none later, because the connection is closed."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel = Channel(sock)
    try:
        sock.connect(str(runtime / SOCKET))
        wanted = {"spec": str(spec_file), "log": str(log)}
        channel.send({"agent": wanted, **surroundings(spec)})
        answer = channel.receive(_PATIENCE)
    except (OSError, Closed):
        return False
    finally:
        channel.close()
    return answer is not None and "forked" in answer[0]
