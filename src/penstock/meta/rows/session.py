"""One transaction: statements, the store's clock, references to blobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, CursorResult, Executable, Row, Select, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from penstock.base.clock import Clock
from penstock.base.errors import PenstockError
from penstock.meta import tables
from penstock.meta.columns import mentioned

T = TypeVar("T")
MANY = 500  # values in one IN (...): below every database's limit
AT_ONCE = 5000  # rows of one statement: a hundred thousand digests never lie in memory as rows


class Session:
    """Wraps a connection for the time of one transaction; used by one thread.

    After a statement has failed, every further one fails with the same error and nothing is
    committed: some databases end the transaction by themselves, and what a caller who went on
    would write then must not become visible on its own.
    """

    def __init__(
        self,
        connection: Connection,
        clock: Clock | None,
        translate: Callable[[SQLAlchemyError], PenstockError],
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._translate = translate
        self.failed: PenstockError | None = None

    def now(self) -> float:
        assert self._clock is not None
        return self._clock.wall()

    def execute(self, statement: Executable, rows: Any = None) -> CursorResult[Any]:
        if self.failed is not None:
            raise self.failed
        try:
            return self._connection.execute(statement, rows)
        except SQLAlchemyError as error:
            self.failed = self._translate(error)
            raise self.failed from error

    def first(self, statement: Select[Any]) -> Row[Any] | None:
        return self.execute(statement).first()

    def one(self, kind: type[T], statement: Select[Any]) -> T | None:
        """The first row as a record, or None."""
        row = self.first(statement)
        return None if row is None else kind(**row._mapping)

    def all(self, kind: type[T], statement: Select[Any]) -> list[T]:
        return [kind(**row._mapping) for row in self.execute(statement)]

    def texts(self, statement: Select[Any]) -> list[str]:
        return list(self.execute(statement).scalars())

    def insert_new(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
        """Insert rows; those whose key exists are left alone. Returns how many were new."""
        if not rows:
            return 0
        postgres = self._connection.dialect.name == "postgresql"
        insert: Any = postgresql.insert(table) if postgres else sqlite.insert(table)
        new = insert.on_conflict_do_nothing().execution_options(preserve_rowcount=True)
        return self.execute(new, [dict(row) for row in rows]).rowcount

    # references to blobs

    def keep(self, owner: str, digests: Iterable[str] = (), *values: Any) -> None:
        """Record that `owner` needs `digests` and every digest that `values` mention."""
        needed = {digest for digest in digests if digest} | mentioned(values)
        for part in in_parts(sorted(needed), AT_ONCE):
            self.insert_new(tables.refs, [{"owner": owner, "digest": each} for each in part])

    def let_go(self, owner: str) -> None:
        self.execute(delete(tables.refs).where(tables.refs.c.owner == owner))


def columns(table: Table, kind: type[Any]) -> Select[Any]:
    """SELECT of exactly the fields of a record."""
    return select(*(table.c[field.name] for field in dataclasses.fields(kind)))


def in_parts(values: Iterable[str], most: int = MANY) -> Iterable[list[str]]:
    """The values in lists of at most `most`."""
    ordered = list(values)
    return (ordered[at : at + most] for at in range(0, len(ordered), most))
