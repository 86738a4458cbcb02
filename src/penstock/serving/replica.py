"""One replica: a process that serves one model version until it is told to go.

    python -m penstock.serving.replica --help

It opens the blob store and never the meta store. It says on `--ready-fd` that it is ready (or
why it cannot be) in one JSON line, and is from then on steered by signals alone:

SIGTERM  stop: no new connections, new requests are refused with UNAVAILABLE, those in flight are
         finished, exit 0
SIGUSR1  leave to a successor on the same port: no new connections, but requests are answered
         until the clients have gone over by themselves, exit 0. They do, as every connection is
         renewed (GOAWAY, without loss) when it is `--connection-seconds` old.

The kernel kills it when its keeper dies (PDEATHSIG); a replica that was started by hand, without
`--parent`, has no keeper.

The server is gRPC's synchronous one with a bounded pool of threads: a request is computation in
ONNX Runtime, which releases the GIL, so an event loop would only add a thread hop; and grpc.aio
was seen to cancel calls under load. Beyond `--in-flight` calls gRPC answers RESOURCE_EXHAUSTED.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from penstock.base import process
from penstock.base.errors import PenstockError, Unavailable
from penstock.base.layout import Layout
from penstock.base.log import facts, logger, set_up
from penstock.blobs import open_blobs
from penstock.registry import LoadedModel, open_package
from penstock.serving.metrics import Metrics
from penstock.serving.protocol.open_inference_pb2_grpc import (
    add_GRPCInferenceServiceServicer_to_server,
)
from penstock.serving.service import LARGEST_MESSAGE, Identity, InferenceService
from penstock.serving.sockets import LOOPBACK, connections, stop_listening
from penstock.serving.tensors import datatype

log = logger("serving")

_LOOK = 0.02  # seconds between looks while draining
_LONGEST_CALL = 600  # seconds a call may go on over a connection that is being renewed


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="penstock.serving.replica")
    add = parser.add_argument
    add("--home", type=Path, required=True, help="the home's folder")
    add("--blobs", required=True, help="URL of the blob store")
    add("--digest", required=True, help="of the model package")
    add("--model", required=True, help="name of the model")
    add("--version", type=int, required=True, help="number of the model version")
    add("--deployment", required=True, help="the other name under which it is reached")
    add("--port", type=int, default=0, help="loopback port; 0 takes a free one")
    add("--threads", type=int, default=min(4, cores), help="inside one operator")
    add("--workers", type=int, default=max(4, 2 * cores), help="requests computed at once")
    add("--in-flight", type=int, default=256, help="calls accepted at once")
    add("--connection-seconds", type=float, default=5.0, help="age at which one is renewed")
    add("--drain-seconds", type=float, default=30.0, help="the longest that leaving may take")
    add("--parent", type=int, help="pid of the keeper, whose end is this process's end")
    add("--ready-fd", type=int, default=1, help="where the one line goes; default: stdout")
    add("--log-level", default="info")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal. Returns the exit code: 0 after a drain, an error's own otherwise."""
    given = _arguments(argv)
    # Blocked before any thread exists, so that every thread inherits it and only `sigwait` sees
    # them: a signal during the start waits until the start is done.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the keeper, which then drains us
    if given.parent is not None:
        process.die_with_parent(given.parent)
    set_up(given.log_level)
    os.environ.setdefault("OMP_NUM_THREADS", str(given.threads))  # torch reads it when imported
    try:
        replica = Replica(given)
    except PenstockError as error:
        log.error("cannot serve", extra=facts(**error.as_dict()))
        _say(given.ready_fd, {"error": error.as_dict()})
        return error.exit_code
    _say(given.ready_fd, replica.facts())
    got = signal.sigwait({signal.SIGTERM, signal.SIGUSR1})
    replica.leave() if got == signal.SIGUSR1 else replica.stop()
    return 0


class Replica:
    """The server and its model. Owns the gRPC threads and the thread of the metrics."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        model = _load(given)
        identity = Identity(given.deployment, given.model, given.version)
        metrics = Metrics(given.deployment, identity.reference)
        self._runtime = model.runtime
        self._service = InferenceService(model, identity, metrics)
        self._health = health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=ThreadPoolExecutor(1)
        )
        self._server = grpc.server(
            ThreadPoolExecutor(given.workers, thread_name_prefix="request"),
            maximum_concurrent_rpcs=given.in_flight,
            options=[
                ("grpc.max_receive_message_length", LARGEST_MESSAGE),
                ("grpc.max_send_message_length", LARGEST_MESSAGE),
                ("grpc.so_reuseport", 1),
                ("grpc.max_connection_age_ms", round(given.connection_seconds * 1000)),
                ("grpc.max_connection_age_grace_ms", _LONGEST_CALL * 1000),
            ],
        )
        add_GRPCInferenceServiceServicer_to_server(self._service, self._server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.metrics_port = metrics.serve()
        self._names = ("", "inference.GRPCInferenceService", given.deployment, given.model)
        for name in self._names:
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        try:
            self.port: int = self._server.add_insecure_port(f"{LOOPBACK}:{given.port}")
        except RuntimeError as error:
            raise Unavailable(
                f"port {given.port} of {LOOPBACK} cannot be listened on: {error}",
                "Another program has it; stop it, or take --port 0.",
                port=given.port,
            ) from None
        self._server.start()
        log.info("ready", extra=facts(model=identity.reference, port=self.port))

    def facts(self) -> dict[str, Any]:
        """What the keeper is told."""
        return {
            "port": self.port,
            "metrics": f"http://{LOOPBACK}:{self.metrics_port}/metrics",
            "runtime": self._runtime,
            "pid": os.getpid(),
        }

    def stop(self) -> None:
        """Finish what is in flight, refuse the rest."""
        self._say_not_serving()
        self._service.close()
        stop_listening(self.port)
        self._wait(lambda: self._service.in_flight == 0, signals=set())
        self._server.stop(1.0).wait()
        log.info("stopped")

    def leave(self) -> None:
        """Answer until every client has gone to the successor; SIGTERM shortens it to `stop`."""
        stop_listening(self.port)
        self._wait(lambda: connections(self.port) == 0, signals={signal.SIGTERM})
        self.stop()

    def _wait(self, done: Callable[[], bool], signals: set[signal.Signals]) -> None:
        deadline = time.monotonic() + self._given.drain_seconds
        while not done() and time.monotonic() < deadline:
            if signal.sigtimedwait(signals, _LOOK) is not None:
                return

    def _say_not_serving(self) -> None:
        for name in self._names:
            self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)


def _load(given: argparse.Namespace) -> LoadedModel:
    """The model, warmed up by one row of zeros, with a signature that the protocol can say."""
    import numpy as np

    model = open_package(
        open_blobs(given.blobs),
        given.digest,
        Layout(given.home),
        reference=f"{given.model}@{given.version}",
        threads=given.threads,
    )
    for spec in (*model.signature.inputs, *model.signature.outputs):
        datatype(spec.dtype)
    row = {
        spec.name: np.zeros([max(size, 1) for size in spec.shape], spec.dtype)
        for spec in model.signature.inputs
    }
    try:
        model.predict(row)
    except Exception as error:  # noqa: BLE001  zeros may be no valid input; requests will tell
        log.warning("the first row of zeros failed", extra=facts(error=str(error)))
    return model


def _say(fd: int, line: dict[str, Any]) -> None:
    """The one line; a keeper that has died needs none."""
    try:
        os.write(fd, json.dumps(line).encode() + b"\n")
    except BrokenPipeError:
        return
    if fd > 2:
        os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
