"""Transactions on PostgreSQL, and the locks that make them safe.

A reader sees one moment (REPEATABLE READ). Writers run under READ COMMITTED and take their locks
before anything else, so that none has to be repeated: blocks of `write` cannot be. Whoever has no
lease, or says so, has the store to itself; holders of leases share it, and of one lease there is
one at a time. Both are advisory locks, which end with the transaction and belong to no row.
Commits of different runs go on side by side: each waits for the disk, and the database lets them
wait together.

A transaction that its client does not go on with (it is stopped, or its machine is gone) is ended
by the server after some seconds, and its locks with it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy import Connection, Executable, create_engine, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from penstock.base.clock import Clock
from penstock.base.errors import PenstockError, StoreUnreachable
from penstock.meta.engine import BEGIN, SqlMeta
from penstock.meta.postgres import address, schema
from penstock.meta.postgres.faults import from_sqlalchemy
from penstock.meta.postgres.rows import PostgresReader, PostgresWriter
from penstock.meta.rows.whole import SqlWriter
from penstock.meta.schema import HEAD
from penstock.records import Lease

_STORE = "penstock/meta"  # the lock that everybody takes: shared with a lease, else alone
_PATIENCE = 10.0  # seconds for a server that went away, before anything was begun
_COMMITS = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"


class PostgresMeta(SqlMeta):
    """Safe for many threads; each transaction has a connection of the pool while it lasts.

    clock  None: the database's own, by which all machines agree on leases
    look   open only what is there, and make or migrate nothing
    Raises StoreUnreachable, AccessDenied, BadInput, NewerSchema, Unavailable at opening.
    """

    _reader = PostgresReader
    _writer = PostgresWriter
    _reads = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    _feed_pause = 0.05

    def __init__(self, url: str, clock: Clock | None, look: bool = False) -> None:
        self._address = address.read(url)
        self._shown = address.shown(self._address)
        engine = create_engine(
            self._address,
            poolclass=QueuePool,
            pool_size=2,
            max_overflow=30,
            pool_timeout=30,
            pool_pre_ping=True,  # a server that was started again is met by a new connection
            isolation_level="AUTOCOMMIT",  # we say BEGIN ourselves
            connect_args=address.connecting(self._address),
        )
        super().__init__(engine, clock)
        self._patience = 0.0  # of an opening: a wrong address is said at once
        self.found = self._found()
        if self.found != HEAD and not look:
            self._bring_up()
        self._patience = _PATIENCE

    @property
    def url(self) -> str:
        """With its password: it opens the same store."""
        plain = self._address.set(drivername="postgresql")
        return plain.render_as_string(hide_password=False)

    @property
    def shown(self) -> str:
        return self._shown

    def _found(self) -> str | None:
        with self._transaction(_Plain, "BEGIN") as plain:
            schema.check_server(plain.connection, self._shown)
            return schema.found_in(plain.connection, self._shown)

    def _bring_up(self) -> None:
        with self._alone(_Plain) as plain:
            schema.bring_up(plain.connection, self._shown)

    # transactions

    @contextmanager
    def _writers(self, lease: Lease | None, alone: bool) -> Iterator[SqlWriter]:
        if lease is None or alone:
            with self._alone(self._writer) as writer:
                yield writer
            return
        with self._transaction(self._writer, "BEGIN") as writer:
            writer.execute(_lock(_STORE, shared=True))
            writer.execute(_lock(f"lease/{lease.key}"))
            yield writer

    @contextmanager
    def _alone(self, kind: type[Any]) -> Iterator[Any]:
        with self._transaction(kind, "BEGIN") as writer:
            writer.execute(_lock(_STORE))
            yield writer

    def _connection(self, begin: str) -> AbstractContextManager[Connection]:
        return self._patiently(lambda: self._engine.connect().execution_options(**{BEGIN: begin}))

    def _patiently(self, connect: Callable[[], Connection]) -> Connection:
        """A server that is started again is waited for: nothing was begun yet."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return connect()
            except SQLAlchemyError as error:
                translated = self._translate(error)
                if not isinstance(translated, StoreUnreachable) or time.monotonic() > deadline:
                    raise translated from error
            time.sleep(0.1)

    def _translate(self, error: SQLAlchemyError) -> PenstockError:
        return from_sqlalchemy(error, self._shown)

    @contextmanager
    def _watch(self) -> Iterator[Any]:
        """The oldest open transaction: another one when something was committed."""

        def version() -> Any:
            try:
                with self._patiently(self._engine.connect) as connection:
                    return connection.exec_driver_sql(_COMMITS).scalar_one()
            except SQLAlchemyError as error:
                raise self._translate(error) from error

        yield version


class _Plain:
    """A transaction without questions, for the schema itself."""

    def __init__(self, connection: Connection, _clock: Any, _translate: Any) -> None:
        self.connection = connection
        self.failed: PenstockError | None = None

    def execute(self, statement: Any) -> None:
        self.connection.execute(statement)


def _lock(name: str, shared: bool = False) -> Executable:
    """Take an advisory lock until the transaction ends. It gives the transaction no number."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    take = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
    return select(take(key))
