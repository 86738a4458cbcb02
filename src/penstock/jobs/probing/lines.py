"""TCP between machines, as agents and ranks need it: on any port, for any number of bytes.

A listener takes a port that the kernel chooses, as an agent and gloo do. Whoever calls shows its
token, which is told by another way, and then says "e": each byte comes back, or "s": bytes are
counted, and how many in how many seconds is the answer.
"""

from __future__ import annotations

import hmac
import secrets
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Any

_TOKEN = 32  # bytes
_PIECE = 1 << 20  # bytes of one send
_PATIENCE = 10.0  # seconds that a listener waits for a caller's next byte
_MOST = 1 << 30  # bytes that a listener takes of one caller
_ECHOES = 3
_COUNTED = struct.Struct("<Qd")  # bytes, seconds


@dataclass(frozen=True)
class Line:
    """The way to a listener. token: hex digits; who has them may call."""

    host: str
    port: int
    token: str = field(repr=False)


class Listener:
    """Owns a socket at an address of this machine, a thread that accepts and one for each caller;
    they end with `close`, or with the process. Raises OSError where the address is not its own."""

    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.create_server((address, 0), family=family, backlog=128)
        token = secrets.token_bytes(_TOKEN)
        self._token = token
        self.line = Line(address, self._socket.getsockname()[1], token.hex())
        threading.Thread(target=self._accept, name="probe-listener", daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._socket.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(caller,), daemon=True).start()

    def _serve(self, caller: socket.socket) -> None:
        with caller:
            caller.settimeout(_PATIENCE)
            try:
                shown = _exactly(caller, _TOKEN + 1)
                if not hmac.compare_digest(shown[:_TOKEN], self._token):
                    return
                if shown[_TOKEN:] == b"e":
                    _echo(caller)
                else:
                    _count(caller)
            except OSError:
                return  # the caller is gone; its end says so


def _exactly(sock: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        piece = sock.recv(count - len(found))
        if not piece:
            raise ConnectionError("the other end closed the connection")
        found += piece
    return found


def _echo(caller: socket.socket) -> None:
    for _ in range(_ECHOES):
        caller.sendall(_exactly(caller, 1))


def _count(caller: socket.socket) -> None:
    buffer = bytearray(_PIECE)
    began, count = 0.0, 0
    while count < _MOST and (size := caller.recv_into(buffer)):
        began = began or time.perf_counter()  # with the first bytes, which are not timed
        count += size
    took = time.perf_counter() - began if began else 0.0
    caller.sendall(_COUNTED.pack(count, took))


def reached(line: Line, timeout: float) -> dict[str, Any]:
    """{"seconds": of a byte there and back}, or {"error": why not}, after `timeout` at the latest
    for each of connecting and answering."""
    try:
        with _connected(line, timeout) as sock:
            sock.sendall(bytes.fromhex(line.token) + b"e")
            took = []
            for _ in range(_ECHOES):
                began = time.perf_counter()
                sock.sendall(b"x")
                _exactly(sock, 1)
                took.append(time.perf_counter() - began)
            return {"seconds": min(took)}
    except OSError as error:
        return {"error": _told(error, timeout)}


def sent(line: Line, most: int, seconds: float, timeout: float) -> dict[str, Any]:
    """{"bytes", "seconds"} as the receiver counted them, or {"error"}: at most so many bytes, and
    for about so many seconds."""
    piece = memoryview(bytes(min(_PIECE, most)))
    left, until = most, time.perf_counter() + seconds
    try:
        with _connected(line, timeout) as sock:
            sock.sendall(bytes.fromhex(line.token) + b"s")
            while left > 0 and time.perf_counter() < until:
                left -= sock.send(piece[: min(len(piece), left)])
            sock.shutdown(socket.SHUT_WR)
            count, took = _COUNTED.unpack(_exactly(sock, _COUNTED.size))
            return {"bytes": count, "seconds": took}
    except OSError as error:
        return {"error": _told(error, timeout)}


def _connected(line: Line, timeout: float) -> socket.socket:
    sock = socket.create_connection((line.host, line.port), timeout=timeout)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _told(error: OSError, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} s"
    return (error.strerror or str(error) or type(error).__name__).lower()
