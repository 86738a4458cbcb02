"""Reading from a neighbour: one gRPC method that gives a thing's bytes from a place on.

    -> {"shard": "v2/HEX.arrow", "at": bytes, "wait": seconds, "but": a file that is no sign of it}
       | {"state": [gang, step, rank], "at": bytes}
    <- {"bytes": of all of it, …} as JSON, then pieces of about 1 MiB, at most `TRANCHE` of them

NOT_FOUND: it is not here. ABORTED: it is being made, or went while it was read. A call gives no
more than a tranche, so that its deadline bounds what silence costs, however large the thing is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from penstock.base.errors import PenstockError, Unavailable
from penstock.jobs.rpc import Door, open_channel

PIECE = 1 << 20  # bytes of one message
TRANCHE = 16 << 20  # bytes of one call
PATIENCE = 2.0  # seconds for a call, beside what it asks the other side to wait
_AT_ONCE = 32  # calls that a node answers or lets wait at the same time
_SERVICE = "penstock.jobs.Neighbour"
_METHOD = f"/{_SERVICE}/Read"

Asked = dict[str, Any]
Read = Callable[[Asked, grpc.ServicerContext], Iterator[bytes]]


class NotThere(Exception):
    """The neighbour has no such thing."""


class NotYet(Exception):
    """It is being made there, or so many ask that it does not answer now."""


def serve(address: str, read: Read, credentials: grpc.ServerCredentials) -> tuple[grpc.Server, int]:
    """Start answering; the caller owns the server and stops it. Returns the port too. Raises
    Unavailable. Its threads are its own: who reads holds up no controller."""
    pool = ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="neighbours")
    server = grpc.server(pool, maximum_concurrent_rpcs=_AT_ONCE)
    handler = grpc.unary_stream_rpc_method_handler(read, request_deserializer=json.loads)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_SERVICE, {"Read": handler}),)
    )
    try:
        port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise Unavailable(f"no port for neighbours: {error}", "See agent.log.") from None
    server.start()
    return server, port


class Reader:
    """The way to one neighbour. Safe for threads; owns a channel until `close`."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self._channel = open_channel(door)
        self._read = self._channel.unary_stream(
            _METHOD,
            request_serializer=lambda asked: json.dumps(asked).encode(),
            response_deserializer=bytes,
        )

    def begin(self, asked: Asked) -> tuple[dict[str, Any], Iterator[bytes]]:
        """What the neighbour says of a thing, and its bytes as they come, tranche by tranche.

        Raises NotThere, NotYet, Unavailable; the iterator raises Unavailable also where it ends
        before all bytes came.
        """
        first = self._tranche({**asked, "at": 0})
        try:
            about: dict[str, Any] = json.loads(next(first))
            size = int(about["bytes"])
        except (StopIteration, ValueError, KeyError, TypeError):
            raise _nonsense(self.door) from None
        return about, self._all(asked, first, size)

    def _all(self, asked: Asked, tranche: Iterator[bytes], size: int) -> Iterator[bytes]:
        at = 0
        try:
            while True:
                before = at
                for piece in tranche:
                    at += len(piece)
                    if at > size:
                        raise _nonsense(self.door)
                    yield piece
                if at == size:
                    return
                if at == before:
                    raise _nonsense(self.door)
                tranche = self._tranche({**asked, "at": at, "wait": 0})
                next(tranche, None)  # what is said of it is known
        except (NotThere, NotYet):
            raise Unavailable("it went while it was read", "It is read elsewhere.") from None

    def _tranche(self, asked: Asked) -> Iterator[bytes]:
        call: Any = self._read(asked, timeout=PATIENCE + float(asked.get("wait", 0)))
        try:
            yield from call
        except grpc.RpcError as error:
            raise _meaning(error, self.door) from None
        except ValueError as error:  # the channel was closed
            raise Unavailable(str(error), "It is read elsewhere.") from None
        finally:
            call.cancel()  # where nobody reads on

    def close(self) -> None:
        self._channel.close()


def _meaning(error: grpc.RpcError, door: Door) -> Exception:
    code = error.code()
    if code is grpc.StatusCode.NOT_FOUND:
        return NotThere()
    if code in (grpc.StatusCode.ABORTED, grpc.StatusCode.RESOURCE_EXHAUSTED):
        return NotYet()
    return Unavailable(f"{door.address} does not answer: {code.name}", "It is read elsewhere.")


def _nonsense(door: Door) -> PenstockError:
    return Unavailable(f"{door.address} gives other bytes than it said", "It is read elsewhere.")
