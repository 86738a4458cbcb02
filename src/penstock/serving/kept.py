"""One deployment in the hands of its keeper: look, decide, carry out.

Owns the deployment's lease, its port, and its replicas: the one that answers, the one that is
being started, and those that are leaving. All methods are called by the keeper's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.base.errors import PenstockError, Unavailable
from penstock.base.files import from_os_error
from penstock.base.log import facts, logger
from penstock.records import Deployment, Lease
from penstock.serving.deployments import report
from penstock.serving.policy import BUDGET, HEALTHY, HOPELESS, Seen, decide, pause
from penstock.serving.sockets import Reservation
from penstock.serving.worker import Worker

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores

log = logger("keeper")


@dataclass(frozen=True, slots=True)
class Pace:
    """connection_seconds  age at which a client's connection is renewed: what a replacement takes
    drain_seconds       the longest that a replica may take to leave
    start_seconds       the longest that a replica may take to become ready
    silent_seconds      how long a replica may be silent before it counts as hung and is killed
    budget              failures in a row before a wish is given up
    """

    connection_seconds: float = 5.0
    drain_seconds: float = 30.0
    start_seconds: float = 120.0
    silent_seconds: float = 30.0
    budget: int = BUDGET


class Kept:
    """See the module. The keeper renews `lease`, next at `renew_at` on its clock."""

    def __init__(
        self, stores: Stores, row: Deployment, lease: Lease, pace: Pace, woken: Callable[[], None]
    ) -> None:
        self.name = row.name
        self.lease = lease
        self.renew_at = 0.0
        self._stores = stores
        self._pace = pace
        self._woken = woken
        self._port = Reservation(_port(row.address))
        self._serving: Worker | None = None
        self._starting: Worker | None = None
        self._leaving: list[Worker] = []
        self._asked: int | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._given_up = False
        self._last_error: dict[str, Any] | None = None
        # A replica gives up draining by itself; killing it is for one that cannot even do that.
        self._patience = pace.drain_seconds + 5.0

    def look(self, row: Deployment) -> None:
        """Bring what is a step nearer to what is wanted. Raises what the stores raise."""
        if row.detail.get("asked") != self._asked:  # a new wish has a budget of its own
            self._asked = row.detail.get("asked")
            self._failures, self._retry_at, self._given_up = 0, 0.0, False
        self._reap()
        self._notice_ready()
        self._notice_death()
        match decide(self._seen(row), self._pace.budget):
            case "start":
                self._start(row)
            case "abandon":
                self._abandon()
            case "give-up":
                self._give_up()
            case "stop":
                self._stop()
            case "wait" if row.wanted == "down" and self.empty and row.state != "stopped":
                self._report("stopped", {}, state="stopped", address=None)

    @property
    def empty(self) -> bool:
        """No process is left."""
        return not any((self._serving, self._starting, self._leaving))

    def close(self) -> None:
        """Tell every replica to finish and end. `reap` until `empty` follows."""
        self._leaving += [each for each in (self._serving, self._starting) if each is not None]
        self._serving = self._starting = None
        for worker in self._leaving:
            worker.stop(self._patience)

    def reap(self) -> None:
        """Forget replicas that are gone, kill those whose time is over."""
        self._reap()

    def release(self, wanted: bool) -> None:
        """Give port and lease back, when `empty`; the row says that nobody keeps it."""
        self._port.close()
        state = "pending" if wanted else "stopped"
        self._report("released", {}, state=state, address=None, detail={"pid": None})
        with self._stores.meta.write() as meta:
            meta.release_lease(self.lease)

    def forget(self) -> None:
        """The lease is somebody else's: end all replicas, write nothing."""
        self.close()
        self._port.close()

    # looking

    def _seen(self, row: Deployment) -> Seen:
        return Seen(
            wanted=row.resolved if row.wanted == "up" else None,
            serving=self._serving.reference if self._serving else None,
            starting=self._starting.reference if self._starting else None,
            failures=self._failures,
            retry_at=self._retry_at,
            given_up=self._given_up,
            now=time.monotonic(),
        )

    def _reap(self) -> None:
        for worker in self._leaving:
            worker.enforce()
        self._leaving = [worker for worker in self._leaving if not worker.gone]

    def _notice_ready(self) -> None:
        new, old = self._starting, self._serving
        if new is None or new.ready is None or new.gone:
            return
        self._report(
            "ready",
            {"serving": new.reference, "replaced": old.reference if old else None, "pid": new.pid},
            state="ready",
            address=self._port.address,
            detail={**new.ready, "serving": new.reference, "error": None},
        )
        self._serving, self._starting = new, None
        if old is not None:
            old.leave(self._pace.drain_seconds + self._patience)
            self._leaving.append(old)

    def _notice_death(self) -> None:
        started, serving = self._starting, self._serving
        if started is not None and started.ready is None:
            late = time.monotonic() - started.started_at > self._pace.start_seconds
            if late and not started.gone:
                started.kill()
        if started is not None and started.gone:
            self._starting = None
            self._count(started)
        if serving is not None and serving.gone:
            if serving.ready_at is None or time.monotonic() - serving.ready_at > HEALTHY:
                self._failures = 0
            self._serving = None
            self._count(serving)
            self._report(
                "died",
                {"serving": serving.reference, "pid": serving.pid, "cause": serving.cause},
                state="starting",
                detail={"pid": None, "serving": None},
            )

    def _count(self, worker: Worker) -> None:
        """A replica that ended unasked spends the budget; a hopeless error spends all of it."""
        hopeless = worker.error is not None and worker.error["code"] in HOPELESS
        self._failures = self._pace.budget if hopeless else self._failures + 1
        self._retry_at = time.monotonic() + pause(self._failures)
        self._last_error = worker.error or _died(worker, self.name)
        log.warning("a replica ended", extra=facts(deployment=self.name, cause=worker.cause))

    # carrying out

    def _start(self, row: Deployment) -> None:
        with self._stores.meta.read() as meta:
            version = meta.get_version("model", row.resolved)
        try:
            self._starting = Worker(
                row.resolved,
                self._arguments(version.name, version.version, version.digest),
                self._stores.layout.deployment(self.name) / "replica.log",
                self._woken,
                self._pace.silent_seconds,
            )
        except OSError as error:
            self._failures += 1
            self._retry_at = time.monotonic() + pause(self._failures)
            self._last_error = from_os_error(
                error, f'starting a replica of "{self.name}"', self._stores.layout.root
            ).as_dict()
            return
        if self._serving is None:
            body = {"resolved": row.resolved, "pid": self._starting.pid}
            self._report("starting", body, state="starting")

    def _arguments(self, model: str, version: int, digest: str) -> list[str]:
        given: dict[str, Any] = {
            "home": self._stores.layout.root,
            "blobs": self._stores.blobs.url,
            "digest": digest,
            "model": model,
            "version": version,
            "deployment": self.name,
            "port": self._port.port,
            "connection-seconds": self._pace.connection_seconds,
            "drain-seconds": self._pace.drain_seconds,
            "log-level": self._stores.settings.log_level,
        }
        return [text for key, value in given.items() for text in (f"--{key}", str(value))]

    def _abandon(self) -> None:
        worker, self._starting = self._starting, None
        if worker is not None:
            worker.kill()
            self._leaving.append(worker)

    def _stop(self) -> None:
        worker, self._serving = self._serving, None
        if worker is not None:
            self._report("draining", {"serving": worker.reference}, state="draining")
            worker.stop(self._patience)
            self._leaving.append(worker)

    def _give_up(self) -> None:
        """The old version, if one answers, goes on; the error is in the row either way."""
        self._given_up = True
        goes_on = self._serving is not None
        self._report(
            "replacement-failed" if goes_on else "failed",
            {"error": self._last_error},
            state="ready" if goes_on else "failed",
            address=self._port.address if goes_on else None,
            detail={"error": self._last_error},
        )

    def _report(self, what: str, body: dict[str, Any], **changes: Any) -> None:
        report(self._stores, self.lease, self.name, f"deployment.{what}", body, **changes)


def _port(address: str | None) -> int | None:
    return int(address.rpartition(":")[2]) if address else None


def _died(worker: Worker, name: str) -> dict[str, Any]:
    error: PenstockError = Unavailable(
        f'the replica of "{name}" ended by {worker.cause}',
        "Its log tells more; deploy again when the cause is mended.",
        deployment=name,
        log=worker.tail(),
    )
    return error.as_dict()
