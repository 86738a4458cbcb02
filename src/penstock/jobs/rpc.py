"""Controller <-> agent: one bidirectional gRPC stream of JSON messages.

The agent serves on a Unix socket in a private folder (the folder's mode is the authentication).
Events carry a sequence number and stay in the agent until they are acknowledged, so a controller
that dies loses none: the next one attaches with a higher generation and reads on. A session of an
older generation is ended: the agent takes no command from a controller that lost its lease.

    controller -> agent   attach, start, kill, drain, save, reply, rank, ack, shutdown
    agent -> controller   ready, started, exited, gone, call, tell, handed, sidecar, progress
"""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from penstock.base.errors import LeaseLost, Unavailable

Message = dict[str, Any]
_METHOD = "/penstock.jobs.Agent/Session"
_OPTIONS = [
    ("grpc.max_receive_message_length", 256 << 20),
    ("grpc.max_send_message_length", 256 << 20),
]
# Of attempts that fail although somebody listens; gRPC makes at least 100 ms of it.
_AGAIN = [(f"grpc.{which}_reconnect_backoff_ms", 20) for which in ("initial", "min", "max")]
_POLL = 0.002  # seconds


def _dump(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def serve(
    address: str, session: Callable[[Iterator[Message], grpc.ServicerContext], Iterator[Message]]
) -> grpc.Server:
    """Start serving; the caller owns the server and stops it."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8), options=_OPTIONS)
    method = grpc.stream_stream_rpc_method_handler(
        session, request_deserializer=json.loads, response_serializer=_dump
    )
    handler = grpc.method_handlers_generic_handler("penstock.jobs.Agent", {"Session": method})
    server.add_generic_rpc_handlers((handler,))
    if server.add_insecure_port(address) == 0:
        raise Unavailable(f"the agent cannot listen on {address}", "Is the folder writable?")
    server.start()
    return server


def _await_listener(address: str, deadline: float) -> None:
    """Until somebody listens there, or the deadline passed. A new agent does after some 50 ms; a
    channel that tried before that would be late by its pause between two attempts."""
    path = address.removeprefix("unix:")
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

    def __init__(self, address: str, inbox: queue.Queue[tuple[object, Message]]) -> None:
        self._inbox = inbox
        self._outbox: queue.Queue[Message | None] = queue.Queue()
        self._channel = grpc.insecure_channel(address, options=_OPTIONS + _AGAIN)
        self._address = address

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
            raise Unavailable(f"the agent refused: {error.code()}", "See agent.log.") from None
        self._inbox.put((self, first))
        threading.Thread(target=self._read, name="agent-events", daemon=True).start()

    def send(self, message: Message) -> None:
        self._outbox.put(message)

    def close(self) -> None:
        self._outbox.put(None)
        self._channel.close()

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
