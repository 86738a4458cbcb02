"""What a replica counts, as Prometheus reads it: http://127.0.0.1:PORT/metrics.

Labels are the deployment and the model's reference: both few, both chosen by the owner of the
home. Nothing that a client sends becomes a label.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    start_http_server,
)

# Seconds: from a small model alone to a large one in a queue.
_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Answer:
    """How a request ended; the handler sets the code, success otherwise."""

    code: str = "OK"


class Metrics:
    """Counters of one replica, in a registry of their own."""

    def __init__(self, deployment: str, model: str) -> None:
        self.registry = CollectorRegistry()
        labels = {"deployment": deployment, "model": model}
        self._requests = Counter(
            "penstock_requests",
            "Inference requests that were answered, by status code.",
            [*labels, "code"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "penstock_request_seconds",
            "Seconds from a request's turn to its answer.",
            list(labels),
            buckets=_BUCKETS,
            registry=self.registry,
        ).labels(**labels)
        self._rows = Counter(
            "penstock_rows", "Rows predicted.", list(labels), registry=self.registry
        ).labels(**labels)
        self._in_flight = Gauge(
            "penstock_requests_in_flight",
            "Inference requests being computed.",
            list(labels),
            registry=self.registry,
        ).labels(**labels)
        self._labels = labels
        ProcessCollector(registry=self.registry)

    @contextmanager
    def request(self) -> Iterator[Answer]:
        """Around one inference request."""
        answer, start = Answer(), perf_counter()
        self._in_flight.inc()
        try:
            yield answer
        finally:
            self._in_flight.dec()
            self._seconds.observe(perf_counter() - start)
            self._requests.labels(**self._labels, code=answer.code).inc()

    def predicted(self, rows: int) -> None:
        self._rows.inc(rows)

    def serve(self) -> int:
        """Serve them on a free loopback port, by a daemon thread; returns the port."""
        server, _ = start_http_server(0, addr="127.0.0.1", registry=self.registry)
        return int(server.server_port)
