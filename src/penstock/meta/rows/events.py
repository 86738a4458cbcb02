"""The story: appended in the transaction that it tells of, read in commit order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, func, insert, select, true

from penstock.meta.rows.session import Session, columns
from penstock.meta.tables import events
from penstock.records import Event

_APPEND = insert(events).returning(events.c.seq)


class EventReader(Session):
    def events(self, after: int = 0, subject: str | None = None, limit: int = 1000) -> list[Event]:
        query = columns(events, Event).where(events.c.seq > after, self._is_settled())
        if subject is not None and subject.endswith("*"):
            head = subject[:-1]
            query = query.where(func.substr(events.c.subject, 1, len(head)) == head)
        elif subject is not None:
            query = query.where(events.c.subject == subject)
        return self.all(Event, query.order_by(events.c.seq).limit(limit))

    def last_event(self) -> int:
        newest = select(func.coalesce(func.max(events.c.seq), 0)).where(self._is_settled())
        return self.execute(newest).scalar_one()  # type: ignore[no-any-return]

    def _is_settled(self) -> ColumnElement[bool]:
        """Which events no other can come before any more. Where writers take turns: all."""
        return true()


class EventWriter(EventReader):
    def event(self, subject: str, kind: str, body: Mapping[str, Any] | None = None) -> int:
        row = {"at": self.now(), "subject": subject, "kind": kind, "body": dict(body or {})}
        return self._append(row)

    def _append(self, row: dict[str, Any]) -> int:
        return self.execute(_APPEND, row).scalar_one()  # type: ignore[no-any-return]
