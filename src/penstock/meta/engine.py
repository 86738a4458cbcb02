"""What all engines share: transactions, the feed of events, and the rule about forks."""

from __future__ import annotations

import ctypes
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import SQLAlchemyError

from penstock.base.clock import Clock
from penstock.base.errors import PenstockError, Unavailable
from penstock.meta.faults import from_sqlalchemy
from penstock.meta.rows.whole import SqlReader, SqlWriter
from penstock.records import Event, Lease

BEGIN = "penstock_begin"  # execution option: how this connection's transaction starts

_open: weakref.WeakSet[SqlMeta] = weakref.WeakSet()


class SqlMeta:
    """One open store over an engine.

    Owns the engine's connections, which end with `close` or with the process. Any number of
    threads may read; writers of this process queue on `_writing`, those of other processes on
    SQLite's own lock, taken at BEGIN IMMEDIATE: so commits have one order, and events show it.
    An engine that lets writers run side by side overrides what says so.

    clock  None: the database's own
    """

    _reader: type[SqlReader] = SqlReader
    _writer: type[SqlWriter] = SqlWriter
    _reads = "BEGIN"  # how a reader's transaction starts
    _feed_pause = 0.01  # seconds between two looks for other processes' commits

    def __init__(self, engine: Engine, clock: Clock | None) -> None:
        self._engine = engine
        self._clock = clock
        self._process = os.getpid()
        self._writing = threading.Lock()
        self._mine = threading.local()  # .writer: this thread's open write transaction
        self._committed = threading.Condition()
        self._raw: set[Any] = set()
        event.listen(engine, "begin", _begin)
        event.listen(engine, "connect", lambda raw, _: self._raw.add(raw))
        event.listen(engine, "close", lambda raw, _: self._raw.discard(raw))
        _open.add(self)

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def shown(self) -> str:
        """The URL for people: without a password."""
        return self.url

    # transactions

    @contextmanager
    def read(self) -> Iterator[SqlReader]:
        self._check_process()
        with self._transaction(self._reader, self._reads) as reader:
            yield reader

    @contextmanager
    def write(self, lease: Lease | None = None, alone: bool = False) -> Iterator[SqlWriter]:
        self._check_process()
        if getattr(self._mine, "writer", None) is not None:
            raise Unavailable(
                "a transaction was opened inside another one of the same thread",
                "End the first one before: load, think, apply.",
            )
        with self._writers(lease, alone) as writer:
            if lease is not None:
                writer.require(lease)
            self._mine.writer = writer
            try:
                yield writer
            finally:
                self._mine.writer = None
        with self._committed:
            self._committed.notify_all()

    def _writers(self, lease: Lease | None, alone: bool) -> AbstractContextManager[SqlWriter]:
        """A writer's transaction, when it is its turn. Here each is alone."""
        return self._taking_turns()

    @contextmanager
    def _taking_turns(self) -> Iterator[SqlWriter]:
        with self._writing, self._transaction(self._writer, "BEGIN IMMEDIATE") as writer:
            yield writer

    @contextmanager
    def _transaction(self, kind: type[Any], begin: str) -> Iterator[Any]:
        """Commit when the block ends, roll back when it raises."""
        try:
            with self._connection(begin) as connection, connection.begin():
                session = kind(connection, self._clock, self._translate)
                yield session
                if session.failed is not None:  # the caller swallowed it
                    raise session.failed
        except SQLAlchemyError as error:
            raise self._translate(error) from error

    def _connection(self, begin: str) -> AbstractContextManager[Connection]:
        return self._engine.connect().execution_options(**{BEGIN: begin})

    def _translate(self, error: SQLAlchemyError) -> PenstockError:
        return from_sqlalchemy(error, None)

    # events

    def wait_events(
        self, after: int, subject: str | None = None, timeout: float = 1.0, limit: int = 1000
    ) -> list[Event]:
        self._check_process()
        deadline = time.monotonic() + timeout
        with self._watch() as version:
            while True:
                before = version()
                with self.read() as reader:
                    found = reader.events(after, subject, limit)
                if found or not self._changed(version, before, deadline):
                    return found

    def _changed(self, version: Any, before: int, deadline: float) -> bool:
        """Wait until another commit was made; False when the time is over first."""
        while version() == before:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with self._committed:  # woken by this process's commits, looks for the others'
                self._committed.wait(min(self._feed_pause, left))
        return True

    @contextmanager
    def _watch(self) -> Iterator[Any]:
        """A function whose value changes with every commit, by any process."""
        raise NotImplementedError
        yield

    # ending

    def close(self) -> None:
        if os.getpid() == self._process:
            self._engine.dispose()

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise Unavailable(
                f"{self.shown} was opened before a fork and is not used in the child",
                "Open it anew in this process: open_meta(url).",
                url=self.shown,
                opened_by=self._process,
            )

    def _abandon(self) -> None:
        """In a forked child: never close the parent's connections.

        Closing one would run SQLite's last-connection clean-up on a log that the parent uses, or
        tell PostgreSQL that the parent is leaving. So each gets a reference that nobody gives
        back; the kernel closes the files at exit.
        """
        for raw in self._raw:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(raw))


def _begin(connection: Any) -> None:
    if begin := connection.get_execution_options().get(BEGIN):
        connection.exec_driver_sql(begin)


def _abandon_all() -> None:
    for store in list(_open):
        store._abandon()


os.register_at_fork(after_in_child=_abandon_all)
