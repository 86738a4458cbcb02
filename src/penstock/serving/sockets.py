"""A port that several replicas share and that outlives each of them.

The keeper reserves it with a bound socket that never listens; replicas listen on it side by side
(SO_REUSEPORT), and the kernel gives each new connection to one of them. A replica that leaves
closes its listening socket first, so that new connections go to its successor only.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOOPBACK = "127.0.0.1"


class Reservation:
    """One loopback port, held by this process until `close`. Owns its socket."""

    def __init__(self, port: int | None = None, patience: float = 1.0) -> None:
        """Reserve `port`, or a free one when it is None or somebody else keeps it.

        patience  seconds to wait for it: replicas of a keeper that was killed may still be dying
        """
        self._socket = socket.socket()
        if port is None or not self._take(port, time.monotonic() + patience):
            self._socket.bind((LOOPBACK, 0))
        # Only after bind: with it set, a bind to port 0 or to a taken port could join a stranger's.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.port: int = self._socket.getsockname()[1]

    def _take(self, port: int, deadline: float) -> bool:
        # Connections that ended a moment ago (TIME_WAIT) do not make a port somebody's.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            try:
                self._socket.bind((LOOPBACK, port))
            except OSError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.02)
            else:
                return True

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def close(self) -> None:
        self._socket.close()


def stop_listening(port: int) -> None:
    """Close this process's listening sockets on `port`; accepted connections go on.

    gRPC has no such call: its `stop` also ends connections, and requests that are on their way
    over them are lost. `shutdown` on a listening socket takes it out of the port's group at once;
    gRPC's acceptor sees EINVAL and ends.
    """
    for each in _sockets(port):
        if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            each.shutdown(socket.SHUT_RDWR)


def connections(port: int) -> int:
    """How many accepted connections this process has on `port`."""
    return sum(_is_connected(each) for each in _sockets(port))


def _is_connected(each: socket.socket) -> bool:
    try:
        each.getpeername()
    except OSError:  # listening, or shut down
        return False
    return True


def _sockets(port: int) -> Iterator[socket.socket]:
    """Duplicates of this process's TCP sockets that are bound to `port`, each closed after use."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        with _duplicate(entry) as each:
            if each is not None and _port(each) == port:
                yield each


@contextmanager
def _duplicate(entry: Path) -> Iterator[socket.socket | None]:
    try:
        is_socket = str(entry.readlink()).startswith("socket:")
        found = socket.socket(fileno=os.dup(int(entry.name))) if is_socket else None
    except OSError:  # closed since it was listed
        found = None
    try:
        yield found
    finally:
        if found is not None:
            found.close()


def _port(each: socket.socket) -> int | None:
    if each.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        return int(each.getsockname()[1])
    except OSError:
        return None
