"""A keeper's connection to a Ray cluster. Every wait for an answer has a deadline.

Owned by the keeper's thread that asks its engine. A driver ends with its cluster, in the middle of
whatever it does: that is why it lives in the keeper, which is started again by its controller. A
client whose server is gone ends the keeper likewise: the next one joins anew, and no state of the
old connection is in its way.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from penstock.base import log
from penstock.base.errors import AccessDenied, BadInput, MissingExtra, PenstockError, Unavailable
from penstock.jobs.backends.engines import address_of
from penstock.jobs.backends.ray.planning import Node

T = TypeVar("T")
NAMESPACE = "penstock"
# What an actor claims that is to be of no weight: a byte of memory. One that claimed nothing would
# be started by way of a node that Ray takes at random, and not at all if that one stands still.
WEIGHTLESS = {"num_cpus": 0, "memory": 1}
_CONNECT = 30.0  # seconds to join a cluster, after which whoever asked is told
_GIVEN_UP = 120.0  # seconds for the same, after which it is begun anew
_START_LOCAL = 60.0  # seconds to start one on this machine
_REACH = 3.0  # seconds for its machine to take a connection
_ANSWER = 10.0  # seconds for an answer of an actor that is there
_FIRST, _NEXT = 30.0, 10.0  # seconds for the observer's first answer, which starts it, and others
_GRACE = "RAY_CLIENT_RECONNECT_GRACE_PERIOD"  # seconds for which a client tries its server again
_log = log.logger("keeper")


def within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """What a call into Ray gives; Unavailable when it takes longer. It then goes on in a thread
    that nobody waits for."""
    return _given(_begun(call), seconds, what)


def _begun(call: Callable[[], T], stay: bool = False) -> Future[T]:
    """stay  the thread lives as long as the process, because what it starts dies with it
    (PDEATHSIG)"""
    given: Future[T] = Future()

    def run() -> None:
        try:
            given.set_result(call())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller gets it
            given.set_exception(error)
        if stay:
            threading.Event().wait()

    threading.Thread(target=run, name="ray-call", daemon=True).start()
    return given


def _given(future: Future[T], seconds: float, what: str) -> T:
    try:
        return future.result(seconds)
    except TimeoutError:
        raise Unavailable(
            f"Ray did not answer within {seconds:g} s: {what}",
            "Look at `ray status`; the run goes on when it answers.",
            silent=True,
        ) from None


class Cluster:
    """Joined at its first use.

    engine  "ray": the one of RAY_ADDRESS, or else one on this machine, which ends with this
            process; "ray://HOST:PORT" by Ray's client; "ray:HOST:PORT" from one of its nodes
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._ray: Any = None
        self._observer: Any = None
        self._attempt: Future[Any] | None = None  # to join; it goes on where nobody waits for it
        self._attempt_ends = 0.0  # on the monotonic clock

    @property
    def ray(self) -> Any:
        """The module, connected. Raises Unavailable, AccessDenied, MissingExtra."""
        if self._ray is None:
            self._ray = self._join()
        return self._ray

    def nodes(self) -> list[Node]:
        """Those that live."""
        seconds = _NEXT
        if self._observer is None:
            self._observer, seconds = self.call("an observer", self._observe), _FIRST
        observer = self._observer
        try:
            rows = self.answer(lambda: observer.nodes.remote(), "nodes of the cluster", seconds)
        except PenstockError:
            self._observer = None  # another may do better
            raise
        return [Node.of(row) for row in rows]

    def _observe(self) -> Any:
        """On the driver's own node, without which there is no driver: no other that is lost is
        asked what is lost."""
        from penstock.jobs.backends.ray.inside import Observer

        ray = self.ray
        here = ray.get_runtime_context().get_node_id()
        near = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(here, soft=True)
        observer = ray.remote(Observer).options(
            **WEIGHTLESS, max_restarts=-1, scheduling_strategy=near
        )
        return observer.remote()

    def call(self, what: str, call: Callable[[], T], seconds: float = _ANSWER) -> T:
        """Whatever is asked of Ray. Raises Unavailable when it fails, or gives no answer in time
        (facts: silent); ValueError as it does itself."""
        ray = self.ray
        try:
            return within(seconds, what, call)
        except (ray.exceptions.GetTimeoutError, ray.exceptions.ActorUnavailableError):
            raise Unavailable(
                f"Ray gave no answer within {seconds:g} s: {what}", silent=True
            ) from None
        except ray.exceptions.RayError as error:
            raise meaning(error, what) from error
        except ConnectionError as error:
            _log.error("the cluster is lost: %s", error)
            os._exit(1)

    def answer(self, ask: Callable[[], Any], what: str, seconds: float = _ANSWER) -> Any:
        """Of an actor or task that is asked. Raises Unavailable when it died, or gives none in
        time (facts: silent)."""
        ray = self.ray
        return self.call(what, lambda: ray.get(ask(), timeout=seconds), seconds + 2.0)

    def leave(self) -> None:
        if self._ray is not None:
            with contextlib.suppress(Unavailable):
                within(_ANSWER, "leaving", self._ray.shutdown)
            self._ray = self._observer = None

    def _join(self) -> Any:
        """A machine that is busy starts the process for a new client slowly: whoever asks again
        waits for the attempt that is under way, since another would be as slow."""
        try:
            import ray
        except ImportError:
            raise MissingExtra(
                f'engine = "{self._engine}" needs Ray, which is not installed',
                'pip install "penstock[ray]"',
            ) from None
        address = address_of(self._engine, os.environ.get("RAY_ADDRESS"))
        self._check_somebody_listens(address)
        if self._attempt is None:
            self._attempt = _begun(lambda: ray.init(**_options(address)), stay=True)
            self._attempt_ends = time.monotonic() + _GIVEN_UP
        elif time.monotonic() > self._attempt_ends:
            _log.error("an attempt to join has not ended in %g s; beginning anew", _GIVEN_UP)
            os._exit(1)
        seconds = _START_LOCAL if address == "local" else _CONNECT
        try:
            _given(self._attempt, seconds, f"joining {address}")
        except PenstockError:
            raise
        except Exception as error:
            self._attempt = None
            raise meaning(error, f"joining the cluster at {address}") from error
        return ray

    def _check_somebody_listens(self, address: str) -> None:
        """Raises Unavailable where nobody does: Ray itself would try for long."""
        host, _, port = address.removeprefix("ray://").rpartition(":")
        os.environ.setdefault(_GRACE, "5")
        if not host:
            return
        try:
            socket.create_connection((host.strip("[]"), int(port)), _REACH).close()
        except OSError as error:
            raise Unavailable(
                f"nobody answers for the cluster at {address}: {error}",
                "Is its head up, and may this machine reach it?",
            ) from None


def _options(address: str) -> dict[str, Any]:
    """Of `ray.init`."""
    options: dict[str, Any] = {
        "address": address,
        "namespace": NAMESPACE,
        "log_to_driver": False,
        "logging_level": "warning",
        "ignore_reinit_error": True,
    }
    return options | ({"include_dashboard": False} if address == "local" else {})


def meaning(error: Exception, what: str) -> PenstockError:
    """The family's error for one of Ray's, or for what that came from."""
    said = _lines(error)
    for each in _chain(error):
        if "auth" in type(each).__name__.lower() or "token" in str(each).lower():
            return AccessDenied(
                f"Ray lets nobody in without its token ({what}): {_lines(each)[0]}",
                "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or ~/.ray/auth_token) as the cluster "
                "has.",
            )
    if "version" in str(error).lower() and "mismatch" in str(error).lower():
        return BadInput(
            f"the cluster has other versions than this machine ({what}): {' '.join(said)[:500]}",
            "Install the same Python and Ray here as on the cluster's nodes.",
        )
    return Unavailable(
        f"Ray failed ({what}): {said[-1][:500]}",
        "Is the cluster up, and may this machine reach it? See `ray status`.",
    )


def _lines(error: BaseException) -> list[str]:
    return str(error).strip().splitlines() or [repr(error)]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """It, and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
