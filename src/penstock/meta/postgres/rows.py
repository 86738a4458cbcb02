"""What PostgreSQL answers otherwise: the time, and which events are settled.

The cursor of an event is its transaction's number (xid8, which is never given twice) and its place
in the transaction. Writers run side by side, so a transaction with a lower number may commit after
one with a higher one; a reader that had passed it would never see its events. So readers are shown
only events below `pg_snapshot_xmin`, the oldest transaction that is still open: no other can come
before those (PostgreSQL 18, section 9.27.8). Numbers are given after a writer's locks are taken
(`store`), so of two transactions of which one had to wait for the other the later one has the
higher number.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Double, insert, literal_column, or_, select

from penstock.base.errors import BadInput
from penstock.meta.rows.session import Session
from penstock.meta.rows.whole import SqlReader, SqlWriter
from penstock.meta.tables import events
from penstock.records import Lease

_BITS = 16  # of a cursor that count the events of one transaction
_NOW = literal_column("extract(epoch FROM clock_timestamp())::float8", Double)
_NUMBER = literal_column("pg_current_xact_id()::text::bigint", BigInteger)
_MOMENT: Any = select(_NOW, _NUMBER)
_SETTLED = literal_column(
    f"pg_snapshot_xmin(pg_current_snapshot())::text::bigint << {_BITS}", BigInteger
)


_APPEND = insert(events)
BEGUN = "penstock_begun"  # of a connection: what `OF_LEASE` gave with the begin of a transaction
OF_LEASE = (
    "SELECT one.key, l.holder, l.generation, l.expires_at, "
    "extract(epoch FROM clock_timestamp())::float8, pg_current_xact_id()::text::bigint "
    "FROM (SELECT {}::text AS key) AS one LEFT JOIN leases AS l ON l.key = one.key"
)


class _Parts(Session):
    """One moment for a whole transaction: nobody can tell two within it apart."""

    _moment: float | None = None

    def now(self) -> float:
        if self._clock is not None:
            return super().now()
        if self._moment is None:
            self._moment = self.execute(select(_NOW)).scalar_one()
        return self._moment

    def _is_settled(self) -> ColumnElement[bool]:
        return events.c.seq < _SETTLED


class PostgresReader(_Parts, SqlReader):
    """A consistent view."""


class PostgresWriter(_Parts, SqlWriter):
    """A transaction, which sees its own events too."""

    _number: int | None = None
    _told = 0

    def _is_settled(self) -> ColumnElement[bool]:
        settled = super()._is_settled()
        if self._number is None:
            return settled
        first = self._number << _BITS
        return or_(settled, events.c.seq.between(first, first | self._told))

    def now(self) -> float:
        if self._moment is None:
            self._learn()
        return super().now()

    def _learn(self) -> None:
        """Moment and number, which nearly every writer needs, by one question."""
        found: Any = self.execute(_MOMENT).one()
        self._moment, self._number = found

    def _newest(self, key: str) -> Lease | None:
        """Of the transaction's own lease, as it began: nobody writes that beside it."""
        begun = self._connection.info.pop(BEGUN, None)
        if begun is None or begun[0] != key:
            return super()._newest(key)
        _, holder, generation, expires_at, self._moment, self._number = begun
        return None if holder is None else Lease(key, holder, generation, expires_at)

    def _append(self, row: dict[str, Any]) -> int:
        row["seq"] = self._cursor()
        self.execute(_APPEND, row)
        return int(row["seq"])

    def _cursor(self) -> int:
        if self._number is None:
            self._learn()
            assert self._number is not None
        self._told += 1
        if self._told >> _BITS:
            raise BadInput(
                f"one transaction tells of more than {(1 << _BITS) - 1} events",
                "Tell them in several.",
            )
        return self._number << _BITS | self._told
