"""What ties rows to blobs: references, pins, and what calls remember."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert, select

from penstock.base.ids import new_id
from penstock.meta.rows.leases import is_dead
from penstock.meta.rows.session import Session, columns, in_parts
from penstock.meta.tables import memories, pins, refs
from penstock.records import Memory

MEMORY = "memory/"  # before the key: owner of what a memory refers to


class BlobReader(Session):
    def recall(self, key: str) -> dict[str, Any] | None:
        row = self.first(select(memories.c.value).where(memories.c.key == key))
        return None if row is None else row.value

    def memories(self, kind: str, after: str = "", limit: int = 1000) -> list[Memory]:
        query = columns(memories, Memory).where(memories.c.kind == kind, memories.c.key > after)
        return self.all(Memory, query.order_by(memories.c.key).limit(limit))

    def referenced(self, digests: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for part in in_parts(digests):
            found.update(self.texts(select(refs.c.digest).where(refs.c.digest.in_(part))))
        return found

    def oldest_pin(self) -> float | None:
        ordered = select(pins.c.holder, pins.c.made_at).order_by(pins.c.made_at)
        return next(
            (row.made_at for row in self.execute(ordered).all() if not is_dead(row.holder)), None
        )


class BlobWriter(BlobReader):
    def remember(self, key: str, kind: str, value: Mapping[str, Any], refs: Iterable[str]) -> None:
        row = {"key": key, "kind": kind, "value": dict(value), "created_at": self.now()}
        if self.insert_new(memories, [row]):
            self.keep(f"{MEMORY}{key}", refs, dict(value))

    def forget(self, keys: Iterable[str]) -> int:
        gone = 0
        for part in in_parts(keys):
            gone += self.execute(delete(memories).where(memories.c.key.in_(part))).rowcount
            owners = [f"{MEMORY}{key}" for key in part]
            self.execute(delete(refs).where(refs.c.owner.in_(owners)))
        return gone

    def refer(self, owner: str, refs: Iterable[str]) -> None:
        self.keep(owner, refs)

    def pin(self, holder: str) -> str:
        self._forget_dead_pins()
        pin = new_id("pin")
        self.execute(insert(pins), {"id": pin, "holder": holder, "made_at": self.now()})
        return pin

    def unpin(self, pin: str) -> None:
        self.execute(delete(pins).where(pins.c.id == pin))

    def _forget_dead_pins(self) -> None:
        holders = set(self.texts(select(pins.c.holder)))
        if dead := [holder for holder in holders if is_dead(holder)]:
            self.execute(delete(pins).where(pins.c.holder.in_(dead)))
