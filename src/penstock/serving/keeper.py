"""Keeps deployments alive: starts, restarts, replaces and drains replicas as their rows say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from penstock.base.errors import LeaseHeld, LeaseLost, PenstockError
from penstock.base.log import facts, logger
from penstock.base.process import Identity
from penstock.records import Deployment
from penstock.serving.deployments import is_kept, lease_key, wait_ready
from penstock.serving.kept import Kept, Pace

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores

log = logger("keeper")

_LOOK = 0.2  # seconds between looks at the rows when nothing wakes the keeper earlier
_REAP = 0.02


class Keeper:
    """One thread that keeps all deployments of a home, or one.

    Owns the thread, and through `Kept` the leases, ports and replica processes. `close` (or
    leaving the `with`) drains the replicas and waits for them; if this process is killed, the
    kernel kills them, and the next keeper starts new ones on the same ports. Two keepers share a
    home: each deployment belongs to whoever has its lease.

    A store that is gone for a while stops no replica: the keeper says so and looks again.
    """

    def __init__(self, stores: Stores, only: str | None = None, pace: Pace | None = None) -> None:
        self._stores = stores
        self._only = only
        self._pace = pace or Pace()
        self._kept: dict[str, Kept] = {}
        self._lost: list[Kept] = []
        self._troubles: set[str] = set()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drain and end. Returns when no replica is left."""
        self._closing.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            self._guarded("the home", self._look)
            self._wake.wait(_LOOK)
        self._end()

    def _guarded(self, what: str, do: Callable[[], None]) -> None:
        """Carry out; a failure is said once, not five times a second, and tried again."""
        try:
            do()
        except PenstockError as error:
            if what not in self._troubles:
                told = facts(keeping=what, code=error.code, fix=error.fix)
                log.warning(error.what, extra=told)
            self._troubles.add(what)
        except Exception:
            if what not in self._troubles:
                log.error("the keeper met a fault of its own; it goes on", exc_info=True)
            self._troubles.add(what)
        else:
            self._troubles.discard(what)

    def _look(self) -> None:
        with self._stores.meta.read() as meta:
            rows = [row for row in meta.deployments() if self._only in (None, row.name)]
            held = {row.name for row in rows if is_kept(meta, row.name)}
        for row in rows:  # one that cannot be kept leaves the others alone
            self._guarded(row.name, partial(self._look_at, row, row.name in held))
        self._lost = [kept for kept in self._lost if not kept.empty]
        for kept in self._lost:
            kept.reap()

    def _look_at(self, row: Deployment, held: bool) -> None:
        kept = self._kept.get(row.name)
        if kept is None:
            idle = row.wanted == "down" and row.state == "stopped"
            kept = None if idle or held else self._take(row)
        if kept is None:
            return
        try:
            self._renew(kept)
            kept.look(row)
        except LeaseLost as error:
            log.warning(error.what, extra=facts(deployment=row.name))
            kept.forget()
            self._lost.append(self._kept.pop(row.name))
            return
        if row.wanted == "down" and kept.empty and row.state == "stopped":
            self._kept.pop(row.name).release(wanted=False)

    def _take(self, row: Deployment) -> Kept | None:
        ttl = self._stores.settings.lease_seconds
        try:
            with self._stores.meta.write() as meta:
                lease = meta.take_lease(lease_key(row.name), str(Identity.mine()), ttl)
        except LeaseHeld:
            return None
        kept = Kept(self._stores, row, lease, self._pace, self._wake.set)
        self._kept[row.name] = kept
        return kept

    def _renew(self, kept: Kept) -> None:
        """Long before the lease ends, so that a store may be gone for a while."""
        now = time.monotonic()
        if now < kept.renew_at:
            return
        with self._stores.meta.write() as meta:
            kept.lease = meta.renew_lease(kept.lease, self._stores.settings.lease_seconds)
        kept.renew_at = now + self._stores.settings.lease_seconds / 3

    def _end(self) -> None:
        for kept in self._kept.values():
            kept.close()
        everyone = [*self._kept.values(), *self._lost]
        while any(not kept.empty for kept in everyone):
            for kept in everyone:
                kept.reap()
            self._wake.clear()
            self._wake.wait(_REAP)
        for name, kept in self._kept.items():
            try:
                with self._stores.meta.read() as meta:
                    wanted = meta.get_deployment(name).wanted == "up"
                kept.release(wanted)
            except PenstockError as error:  # the lease expires by itself
                log.warning(error.what, extra=facts(deployment=name))


@contextmanager
def foreground(
    stores: Stores, name: str, timeout: float = 60.0, pace: Pace | None = None
) -> Iterator[str]:
    """Keep one deployment while the context is open; gives its address, "127.0.0.1:PORT".

    When `penstock up` (or anybody else) keeps it already, it is theirs to keep, and only its
    address is given. Raises the error with which it failed; Unavailable after `timeout` seconds.
    """
    with Keeper(stores, only=name, pace=pace):
        address = wait_ready(stores, name, timeout).address
        assert address is not None  # a row that is ready has one
        yield address
