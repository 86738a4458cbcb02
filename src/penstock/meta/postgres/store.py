"""Transactions on PostgreSQL, and the locks that make them safe.

A reader sees one moment (REPEATABLE READ). Writers run under READ COMMITTED and take their locks
before anything else, so that none has to be repeated: blocks of `write` cannot be. Whoever has no
lease, or says so, has the store to itself; holders of leases share it, and of one lease there is
one at a time. Both are advisory locks, which end with the transaction and belong to no row. They
travel with BEGIN, as one message.
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
from typing import Any, TypeVar

import psycopg
import psycopg.sql
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from penstock.base import log
from penstock.base.clock import Clock
from penstock.base.errors import PenstockError, StoreUnreachable, Unavailable
from penstock.meta.engine import SqlMeta
from penstock.meta.postgres import address, schema
from penstock.meta.postgres.faults import from_psycopg, from_sqlalchemy
from penstock.meta.postgres.rows import BEGUN, OF_LEASE, PostgresReader, PostgresWriter
from penstock.meta.rows.whole import SqlWriter
from penstock.meta.schema import HEAD
from penstock.records import Lease

T = TypeVar("T")
_log = log.logger("meta")
_STORE = "penstock/meta"  # the lock that everybody takes: shared with a lease, else alone
_WRITES = "BEGIN ISOLATION LEVEL READ COMMITTED"  # each statement sees what is committed then
_MOST = 32  # connections of one process
_PATIENCE = 10.0  # seconds for a server that went away, before anything was begun
_FULL = "53300"  # it is there, and has no connection left: those that we have are good
_LOCKED = "55P03"  # a lock was not to be had in time
_SOON = "SET LOCAL lock_timeout = '1s'"  # before whoever waits is told why
_HOLDERS = """
    SELECT pid, application_name, coalesce(host(client_addr), 'its own machine')
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (classid::bigint << 32 | objid::bigint) = %(key)s
"""
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
            pool_size=_MOST,  # made when they are needed, and then kept: each costs a process there
            max_overflow=0,
            pool_use_lifo=True,
            pool_timeout=30,
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
        """Alone. Who is in the way is said, and waited for as long as `lock_timeout` has it."""
        try:
            with self._transaction(_Plain, f"{_WRITES}; {_SOON}{_lock(_STORE)}") as plain:
                return schema.bring_up(plain.connection, self._shown)
        except Unavailable as error:
            if error.facts.get("sqlstate") != _LOCKED:
                raise
        _log.warning(
            "somebody else uses %s alone, as who makes or migrates its tables does; waiting: %s",
            self._shown, self._in_the_way(),
        )  # fmt: skip
        try:
            with self._alone(_Plain) as plain:
                schema.bring_up(plain.connection, self._shown)
        except Unavailable as error:
            if error.facts.get("sqlstate") != _LOCKED:
                raise
            raise Unavailable(
                f"the tables of {self._shown} cannot be made or migrated: somebody else has been "
                f"using them all the time: {self._in_the_way()}",
                "Wait for that process, or end it (SELECT pg_terminate_backend(PID)), then try "
                "again: nothing was changed.",
                **error.facts,
            ) from None

    def _in_the_way(self) -> str:
        """Who holds the lock of the store, for people."""
        with self._transaction(_Plain, "BEGIN") as plain:
            rows = plain.connection.exec_driver_sql(_HOLDERS, {"key": _key(_STORE)}).all()
        told = [f"{name or 'a client'} (pid {pid} there, from {host})" for pid, name, host in rows]
        return ", ".join(told) or "it is gone by now"

    def ask(self, question: Callable[[Connection], T]) -> T:
        """What is asked in a transaction that only reads: of the server, not of the tables."""
        with self._transaction(_Plain, self._reads) as plain:
            return question(plain.connection)

    # transactions

    def _writers(self, lease: Lease | None, alone: bool) -> AbstractContextManager[SqlWriter]:
        if lease is None:
            return self._alone(self._writer)
        locks = _lock(_STORE, shared=not alone)
        if not alone:
            locks += _lock(f"lease/{lease.key}")
        asked = OF_LEASE.format(psycopg.sql.quote(lease.key))
        return self._transaction(self._writer, f"{_WRITES}{locks}; {asked}")

    def _alone(self, kind: type[Any]) -> AbstractContextManager[Any]:
        return self._transaction(kind, _WRITES + _lock(_STORE))

    def _connection(self, begin: str) -> AbstractContextManager[Connection]:
        """One whose transaction has begun."""

        def opened() -> Connection:
            connection = self._engine.connect()
            try:
                _say(connection, begin)
            except BaseException as error:
                connection.invalidate(error if isinstance(error, Exception) else None)
                connection.close()
                raise
            return connection

        return self._patiently(opened)

    def _patiently(self, act: Callable[[], T]) -> T:
        """A server that is started again is waited for: nothing was begun yet. Connections that it
        left behind are found out when they are used, and none is kept."""
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return act()
            except (SQLAlchemyError, psycopg.Error) as error:
                translated = self._meaning(error)
                if not isinstance(translated, StoreUnreachable) or time.monotonic() > deadline:
                    raise translated from error
            if translated.facts.get("sqlstate") != _FULL:
                self._engine.dispose()
            time.sleep(0.1)

    def _meaning(self, error: SQLAlchemyError | psycopg.Error) -> PenstockError:
        if isinstance(error, psycopg.Error):
            return from_psycopg(error, self._shown)
        return self._translate(error)

    def _translate(self, error: SQLAlchemyError) -> PenstockError:
        return from_sqlalchemy(error, self._shown)

    @contextmanager
    def _watch(self) -> Iterator[Any]:
        """The oldest open transaction: another one when something was committed."""

        def ask() -> Any:
            with self._engine.connect() as connection:
                return connection.exec_driver_sql(_COMMITS).scalar_one()

        yield lambda: self._patiently(ask)


class _Plain:
    """A transaction without questions, for the schema itself."""

    def __init__(self, connection: Connection, _clock: Any, _translate: Any) -> None:
        self.connection = connection
        self.failed: PenstockError | None = None

    def execute(self, statement: Any) -> None:
        self.connection.execute(statement)


def _lock(name: str, shared: bool = False) -> str:
    """Take an advisory lock until the transaction ends. It gives the transaction no number."""
    return f"; SELECT pg_advisory_xact_lock{'_shared' if shared else ''}({_key(name)})"


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def _say(connection: Connection, statements: str) -> None:
    """Several at once, which SQLAlchemy and prepared statements know nothing of. What the last one
    gives is left for the transaction."""
    driver: Any = connection.connection.driver_connection
    cursor = driver.execute(statements, prepare=False)
    while cursor.nextset():
        continue
    connection.info[BEGUN] = cursor.fetchone() if cursor.description is not None else None
