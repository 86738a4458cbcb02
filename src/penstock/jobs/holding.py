"""A run's lease in the hands of its owner: taken, renewed, given back; writes go under it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from penstock.base import log, process
from penstock.base.errors import DiskFull, LeaseLost, StoreUnreachable, Unavailable
from penstock.jobs.stores import Stores
from penstock.meta import Writer
from penstock.records import Lease, Run
from penstock.records.runs import ENDED

T = TypeVar("T")
_PATIENCE = 10.0  # seconds for a store that cannot do it now
_AGAIN = 0.5  # seconds between two attempts to renew, where nobody waits for the store
AWAY = 900.0  # seconds for one that is not there at all: the ranks go on meanwhile
_log = log.logger("controller")


class Holding:
    """One run's, by this process. Raises LeaseLost once another owner took over."""

    def __init__(self, stores: Stores, run_id: str) -> None:
        self.lease: Lease | None = None
        self.generation = 0
        self._meta = stores.meta
        self._ttl = stores.settings.lease_seconds
        self._run_id = run_id
        self._next_renewal = 0.0

    def take(self) -> Run:
        """Own the run. Returns its row as it was at that moment.

        A run that ended is not owned: it was stopped while it had no owner yet, and whoever
        comes later learns it here, in one transaction with the taking. Raises LeaseHeld.
        """
        key = f"run/{self._run_id}"
        with self._meta.write() as tx:
            held = tx.find_lease(key)
            if held is not None and held.holder == str(process.Identity.mine()):
                tx.release_lease(held)  # our own: a new start is a new generation
            lease = self._taken(tx)
            run = tx.get_run(self._run_id)
            if run.state in ENDED:
                tx.release_lease(lease)
                return run
        self._owns(lease)
        return run

    def take_anew(self, change: Callable[[Writer], None]) -> None:
        """Own the run as a new generation, and change what the old one ends with, in one
        transaction. Raises LeaseLost."""
        lease = self.lease
        assert lease is not None

        def both(tx: Writer) -> Lease:
            change(tx)
            tx.release_lease(lease)
            return self._taken(tx)

        try:
            self._owns(self.commit(both))
        except LeaseLost:
            self._owns(self._taken_already(lease))

    def _taken_already(self, old: Lease) -> Lease:
        """The next generation, when it is ours: the answer to that commit was lost. Raises
        LeaseLost."""
        with self._meta.read() as db:
            found = db.find_lease(old.key)
        mine = str(process.Identity.mine())
        if found is None or (found.holder, found.generation) != (mine, old.generation + 1):
            raise LeaseLost(
                f'the lease of "{old.key}" moved on', "Another process owns the run now."
            )
        return found

    def _taken(self, tx: Writer) -> Lease:
        return tx.take_lease(f"run/{self._run_id}", str(process.Identity.mine()), self._ttl)

    def _owns(self, lease: Lease) -> None:
        self.lease, self.generation = lease, lease.generation
        self._next_renewal = time.monotonic() + self._ttl / 3

    def commit(self, change: Callable[[Writer], T], alone: bool = False) -> T:
        """One transaction under the lease; a store that is gone for a moment is waited for."""
        since, told = time.monotonic(), False
        while True:
            try:
                with self._meta.write(self.lease, alone) as tx:
                    return change(tx)
            except DiskFull:
                raise
            except Unavailable as error:
                patience = AWAY if isinstance(error, StoreUnreachable) else _PATIENCE
                if time.monotonic() > since + patience:
                    raise
                if not told:
                    _log.warning("waiting: %s", error.what)
                    told = True
                time.sleep(0.2)

    def close_attempts(self, cause: str) -> None:
        """Attempts that a predecessor left open ended when their processes did."""

        def change(tx: Writer) -> None:
            for attempt in tx.attempts(self._run_id):
                if attempt.ended_at is None:
                    tx.end_attempt(self._run_id, attempt.number, cause, None, {})

        self.commit(change)

    def renew(self) -> bool:
        """When it is time to. Returns whether it was."""
        if self.lease is None or time.monotonic() < self._next_renewal:
            return False
        lease = self.lease
        self.lease = self.commit(lambda tx: tx.renew_lease(lease, self._ttl))
        self._next_renewal = time.monotonic() + self._ttl / 3
        return True

    def keep(self) -> None:
        """Renew when it is time to, while something else is waited for: a store that is away is
        asked again by the next call. Raises LeaseLost."""
        now = time.monotonic()
        if self.lease is None or now < self._next_renewal:
            return
        self._next_renewal = now + _AGAIN
        try:
            with self._meta.write(self.lease) as tx:
                lease = tx.renew_lease(self.lease, self._ttl)
        except Unavailable as error:
            _log.warning("the lease is not renewed: %s", error.what)
            return
        self.lease, self._next_renewal = lease, now + self._ttl / 3

    def release(self) -> None:
        """And with it the devices. One that was lost is no longer ours to give back."""
        if self.lease is not None:
            with self._meta.write() as tx:
                newest = tx.find_lease(self.lease.key)
                if newest is not None and newest.generation == self.generation:
                    tx.drop_claim(self._run_id)
                tx.release_lease(self.lease)
            self.lease = None
