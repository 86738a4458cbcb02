"""Leases: who owns what, and the generation that fences."""

from __future__ import annotations

from sqlalchemy import select, update

from penstock.base.errors import LeaseHeld, LeaseLost
from penstock.base.process import Identity
from penstock.meta.rows.session import Session, columns
from penstock.meta.tables import leases
from penstock.records import Lease


class LeaseReader(Session):
    def find_lease(self, key: str) -> Lease | None:
        """Who owns `key`, alive or not, expired or not; None when it is free."""
        query = columns(leases, Lease).where(leases.c.key == key, leases.c.holder != "")
        return self.one(Lease, query)


class LeaseWriter(LeaseReader):
    def take_lease(self, key: str, holder: str, ttl: float) -> Lease:
        row = {"key": key, "holder": "", "generation": 0, "expires_at": 0.0}
        self.insert_new(leases, [row])
        held = self.execute(select(leases).where(leases.c.key == key).with_for_update()).one()
        now = self.now()
        if held.holder and held.expires_at > now and not is_dead(held.holder):
            raise LeaseHeld(
                f'"{key}" is owned by {_people(held.holder)} until its lease runs out',
                "Wait for it or stop it, then try again.",
                key=key,
                holder=held.holder,
                generation=held.generation,
                seconds_left=held.expires_at - now,
            )
        taken = Lease(key, holder, held.generation + 1, now + ttl)
        self._put(taken)
        return taken

    def renew_lease(self, lease: Lease, ttl: float) -> Lease:
        self.require(lease)
        renewed = Lease(lease.key, lease.holder, lease.generation, self.now() + ttl)
        self._put(renewed)
        return renewed

    def release_lease(self, lease: Lease) -> None:
        where = (leases.c.key == lease.key, leases.c.generation == lease.generation)
        self.execute(update(leases).where(*where).values(holder="", expires_at=0.0))

    def require(self, lease: Lease) -> None:
        """LeaseLost unless `lease` is the newest of its key and was not released. The answer holds
        until the transaction ends."""
        row = self._newest(lease.key)
        if row is None or row.generation != lease.generation or row.holder != lease.holder:
            raise LeaseLost(
                f'the lease of "{lease.key}" moved on; nothing was written',
                "Another process owns it now; this one must stop.",
                key=lease.key,
                generation=lease.generation,
                newest=None if row is None else row.generation,
                holder=None if row is None else row.holder,
            )

    def _newest(self, key: str) -> Lease | None:
        """Its row, which stays locked until the transaction ends."""
        query = columns(leases, Lease).where(leases.c.key == key)
        return self.one(Lease, query.with_for_update())

    def _put(self, lease: Lease) -> None:
        values = {
            "holder": lease.holder,
            "generation": lease.generation,
            "expires_at": lease.expires_at,
        }
        self.execute(update(leases).where(leases.c.key == lease.key).values(**values))


def is_dead(holder: str) -> bool:
    """Whether the holder is known to be dead; False when that cannot be known from here."""
    try:
        return Identity.parse(holder).is_dead() is True
    except ValueError:
        return False


def _people(holder: str) -> str:
    try:
        who = Identity.parse(holder)
    except ValueError:
        return f'"{holder}"'
    return f"process {who.pid} on {who.host}"
