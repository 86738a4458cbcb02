"""Messages between the processes of one node: JSON in length-prefixed frames, with descriptors.

A `Channel` owns one end of a stream socketpair. Sending is for small messages (well under the
socket's buffer) and blocks only when the other side does not read; large data goes through
shared memory whose descriptor travels with a message.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import threading
from collections import deque
from typing import Any

_HEADER = struct.Struct("<II")  # length of the JSON, number of descriptors
_MAX_FDS = 8
_MAX_LENGTH = 256 << 20


class Closed(ConnectionError):
    """The other side is gone."""


class Channel:
    """One end. Any thread may send; one thread receives."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self._fds: deque[int] = deque()
        self._sending = threading.Lock()

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """A channel for this process and the socket for the other one."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(mine), theirs

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Send one message whole. Raises Closed."""
        data = json.dumps(message, separators=(",", ":")).encode()
        frame = memoryview(_HEADER.pack(len(data), len(fds)) + data)
        with self._sending:
            try:
                sent = socket.send_fds(self._sock, [frame], list(fds)) if fds else 0
                self._sock.sendall(frame[sent:])
            except OSError as error:
                raise Closed(str(error)) from None

    def receive(self, timeout: float | None = None) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and its descriptors; None after `timeout` seconds. Raises Closed."""
        while (message := self._take()) is None:
            ready, _, _ = select.select([self._sock], [], [], timeout)
            if not ready:
                return None
            self._fill()
        return message

    def drain(self) -> list[tuple[dict[str, Any], list[int]]]:
        """All messages that can be had now without waiting. Raises Closed when there is none left
        and the other side is gone."""
        found: list[tuple[dict[str, Any], list[int]]] = []
        while True:
            while (message := self._take()) is not None:
                found.append(message)
            ready, _, _ = select.select([self._sock], [], [], 0)
            if not ready:
                return found
            try:
                self._fill()
            except Closed:
                if found:
                    return found  # the next call meets the end of the stream again
                raise

    def close(self) -> None:
        """Close it, and descriptors that came with a message that nobody took."""
        self._sock.close()
        while self._fds:
            os.close(self._fds.popleft())

    def _fill(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, 1 << 16, _MAX_FDS)
        except OSError as error:
            raise Closed(str(error)) from None
        if not data:
            raise Closed("end of stream")
        self._buffer += data
        self._fds.extend(fds)

    def _take(self) -> tuple[dict[str, Any], list[int]] | None:
        if len(self._buffer) < _HEADER.size:
            return None
        length, count = _HEADER.unpack_from(self._buffer)
        if length > _MAX_LENGTH:
            raise Closed(f"a frame of {length} bytes")
        end = _HEADER.size + length
        if len(self._buffer) < end:
            return None
        message = json.loads(self._buffer[_HEADER.size : end])
        del self._buffer[:end]
        return message, [self._fds.popleft() for _ in range(count)]
