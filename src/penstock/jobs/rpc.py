"""Controller <-> agent: one bidirectional gRPC stream of JSON messages.

The agent serves on a Unix socket in a private folder (the folder's mode is the authentication), or,
for a controller on another machine, on a port of its own: over TLS, and for whoever shows the token
(`Door`). There it also gives what its processes write into files (`Files`).

Events carry a sequence number and stay in the agent until they are acknowledged, so a controller
that dies loses none: the next one attaches with a higher generation and reads on. A session of an
older generation is ended: the agent takes no command from a controller that lost its lease. To an
agent elsewhere commands have a number too ("n"), in the order in which they were given, and it
passes over those that it has heard: they can be said again by another session ("again").

    controller -> agent   attach, start, kill, drain, save, reply, restart, ack, beat, shutdown,
                          neighbours, keep, copy, stay
    agent -> controller   ready, started, exited, gone, call, tell, handed, sidecar, progress, kept,
                          hung, holds, listens, beat, parts
"""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc

from penstock.base.errors import LeaseLost, Unavailable

Message = dict[str, Any]
_SERVICE = "penstock.jobs.Agent"
_METHOD = f"/{_SERVICE}/Session"
_FILES = f"/{_SERVICE}/Files"
_OPTIONS = [
    ("grpc.max_receive_message_length", 256 << 20),
    ("grpc.max_send_message_length", 256 << 20),
]
# Of attempts that fail although somebody listens; gRPC makes at least 100 ms of it.
_AGAIN = [(f"grpc.{which}_reconnect_backoff_ms", 20) for which in ("initial", "min", "max")]
_POLL = 0.002  # seconds
_FILES_TIMEOUT = 8.0  # seconds for one look at all files of an agent


def _dump(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Door:
    """The way to an agent on another machine.

    certificate  PEM of the agent's own, which nobody else has signed and is the only one trusted
    token        to be shown with every call
    """

    host: str
    port: int
    certificate: str = field(repr=False)
    token: str = field(repr=False)

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


NAME = "penstock-agent"  # in the certificates of agents, whatever their address


def serve(
    address: str,
    session: Callable[[Iterator[Message], grpc.ServicerContext], Iterator[Message]],
    files: Callable[[Message, grpc.ServicerContext], Iterator[Message]],
    credentials: grpc.ServerCredentials | None = None,
) -> tuple[grpc.Server, int]:
    """Start serving; the caller owns the server and stops it. Returns the port too."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8), options=_OPTIONS)
    methods = {
        "Session": grpc.stream_stream_rpc_method_handler(
            session, request_deserializer=json.loads, response_serializer=_dump
        ),
        "Files": grpc.unary_stream_rpc_method_handler(
            files, request_deserializer=json.loads, response_serializer=_dump
        ),
    }
    handler = grpc.method_handlers_generic_handler(_SERVICE, methods)
    server.add_generic_rpc_handlers((handler,))
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise _cannot_listen(address, str(error)) from None
    if port == 0:
        raise _cannot_listen(address, "")
    server.start()
    return server, port


def _cannot_listen(address: str, why: str) -> Unavailable:
    return Unavailable(
        f"the agent cannot listen on {address} {why}".rstrip(),
        "Is the folder writable, and the address one of this machine?",
    )


def open_channel(way: str | Door) -> grpc.Channel:
    """way  "unix:PATH", or the door of an agent elsewhere"""
    options = _OPTIONS + _AGAIN
    if isinstance(way, str):
        return grpc.insecure_channel(way, options=options)
    shown = grpc.access_token_call_credentials(way.token)
    trusted = grpc.ssl_channel_credentials(way.certificate.encode())
    both = grpc.composite_channel_credentials(trusted, shown)
    named = [("grpc.ssl_target_name_override", NAME)]
    return grpc.secure_channel(way.address, both, options=options + named)


def _await_listener(address: str, deadline: float) -> None:
    """Until somebody listens there, or the deadline passed. A new agent does after some 50 ms; a
    channel that tried before that would be late by its pause between two attempts."""
    path = address.removeprefix("unix:")
    if path == address:
        return
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
            if tried.connect_ex(path) == 0:
                return
        time.sleep(_POLL)


class Session:
    """The controller's end. Owns one reader thread, which ends with the stream.

    Everything the agent says arrives in `inbox` as `(source, message)`; the end of the stream as
    `(source, {"lost": reason})`.
    """

    def __init__(self, way: str | Door, inbox: queue.Queue[tuple[object, Message]]) -> None:
        self._inbox = inbox
        self._outbox: queue.Queue[Message | None] = queue.Queue()
        self._channel = open_channel(way)
        self._address = way if isinstance(way, str) else way.address

    def attach(self, generation: int, facts: Message, timeout: float) -> None:
        """Become the agent's controller. Raises Unavailable when nobody answers, LeaseLost when
        the agent obeys a newer one."""
        deadline = time.monotonic() + timeout
        _await_listener(self._address, deadline)
        try:
            left = max(0.1, deadline - time.monotonic())
            grpc.channel_ready_future(self._channel).result(timeout=left)
        except grpc.FutureTimeoutError:
            self._channel.close()
            raise Unavailable(
                f"no agent answers on {self._address}", "The controller starts a new one."
            ) from None
        call = self._channel.stream_stream(
            _METHOD, request_serializer=_dump, response_deserializer=json.loads
        )
        self.send({"attach": {"generation": generation, **facts}})
        self._call = call(iter(self._outbox.get, None))
        try:
            first = next(iter(self._call))
        except grpc.RpcError as error:
            self._channel.close()
            if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                raise LeaseLost(str(error.details()), "A newer controller owns this run.") from None
            why = f"the agent at {self._address} refused: {error.code()}"
            raise Unavailable(why, "See agent.log.") from None
        self._inbox.put((self, first))
        threading.Thread(target=self._read, name="agent-events", daemon=True).start()

    def send(self, message: Message) -> None:
        self._outbox.put(message)

    def close(self) -> None:
        self._outbox.put(None)
        self._channel.close()

    def files(self, have: dict[str, int]) -> Iterator[Message]:
        """What the agent's files hold beyond the bytes that are here already, by name. Raises
        Unavailable. In any thread."""
        call = self._channel.unary_stream(
            _FILES, request_serializer=_dump, response_deserializer=json.loads
        )
        try:
            yield from call({"have": have}, timeout=_FILES_TIMEOUT)
        except grpc.RpcError as error:
            why = f"files of the agent at {self._address} cannot be read: {error.code()}"
            raise Unavailable(why, "They are read again.") from None
        except ValueError as error:  # the channel was closed
            raise Unavailable(str(error)) from None

    def _read(self) -> None:
        try:
            for message in self._call:
                self._inbox.put((self, message))
            reason = "the agent ended the session"
        except grpc.RpcError as error:
            reason = str(error.code())
        except ValueError as error:  # the channel was closed under the iterator
            reason = str(error)
        self._inbox.put((self, {"lost": reason}))
