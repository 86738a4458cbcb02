"""Claims on devices: one row per run. The caller decides, under a lock of the machine."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import delete, insert, select

from penstock.meta.rows.session import Session, columns
from penstock.meta.tables import claims, leases
from penstock.records import Claim


class ClaimReader(Session):
    def claims(self, host: str | None = None) -> list[Claim]:
        query = columns(claims, Claim)
        if host is not None:
            query = query.where(claims.c.host == host)
        return self.all(Claim, query.order_by(claims.c.ticket, claims.c.run_id))


class ClaimWriter(ClaimReader):
    def lock_claims(self, host: str) -> None:
        key = f"devices/{host}"
        self.insert_new(leases, [{"key": key, "holder": "", "generation": 0, "expires_at": 0.0}])
        self.execute(select(leases.c.key).where(leases.c.key == key).with_for_update())

    def put_claim(self, claim: Claim) -> None:
        self.drop_claim(claim.run_id)
        self.execute(insert(claims), asdict(claim))

    def drop_claim(self, run_id: str) -> bool:
        return self.execute(delete(claims).where(claims.c.run_id == run_id)).rowcount > 0
