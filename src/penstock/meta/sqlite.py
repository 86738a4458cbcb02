"""The meta store in one SQLite file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from penstock.base.clock import Clock
from penstock.base.errors import PenstockError, Unavailable
from penstock.base.files import os_errors
from penstock.meta import schema
from penstock.meta.engine import SqlMeta
from penstock.meta.faults import from_sqlalchemy, from_sqlite, read_only
from penstock.meta.network import refuse_network


class SqliteMeta(SqlMeta):
    """A file in WAL mode, every commit flushed; for the processes of one machine.

    Raises NetworkHome, NewerSchema, ReadOnly, DiskFull, Damaged at opening.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        refuse_network(path)
        self._path = path
        with os_errors("making the folder of the meta store", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
            raise read_only(path)
        found = self._found()
        engine = create_engine(
            URL.create("sqlite", database=str(path)),
            poolclass=QueuePool,
            pool_size=4,
            max_overflow=-1,  # a thread that waits for a connection could wait for ever
            connect_args={
                "timeout": schema.PATIENCE,
                "isolation_level": None,  # we say BEGIN ourselves
                "check_same_thread": False,
            },
        )
        event.listen(engine, "connect", _prepare)
        super().__init__(engine, clock)
        if found != schema.HEAD:
            self._bring_up()

    @property
    def url(self) -> str:
        return f"sqlite:///{self._path}"

    def _found(self) -> str | None:
        try:
            return schema.found_in(self._path)
        except sqlite3.Error as error:
            raise from_sqlite(error, self._path) from error

    def _bring_up(self) -> None:
        """Make or migrate the schema; whoever comes second finds it done."""
        with schema.only_one(self._path.parent):
            found = self._found()
            if found == schema.HEAD:
                return
            self._use_wal()
            with self._transaction(_Plain, "BEGIN IMMEDIATE") as plain:
                (schema.create if found is None else schema.migrate)(plain.connection)

    def _use_wal(self) -> None:
        """Switch the file to write-ahead logging; the file remembers it."""
        try:
            with closing(sqlite3.connect(self._path, timeout=schema.PATIENCE)) as raw:
                mode = raw.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.Error as error:
            raise from_sqlite(error, self._path) from error
        if mode != "wal":
            raise Unavailable(
                f"the file system of {self._path} cannot share memory between processes",
                "Point `home` (PENSTOCK_HOME) to a folder on an ordinary local disk.",
                path=str(self._path),
            )

    def _translate(self, error: SQLAlchemyError) -> PenstockError:
        return from_sqlalchemy(error, self._path)

    @contextmanager
    def _watch(self) -> Iterator[Any]:
        """`PRAGMA data_version` of a connection that never writes: some microseconds."""
        try:
            raw = self._engine.raw_connection()
        except SQLAlchemyError as error:
            raise self._translate(error) from error
        with closing(raw), closing(raw.cursor()) as cursor:

            def version() -> Any:
                try:
                    return cursor.execute("PRAGMA data_version").fetchone()[0]
                except sqlite3.Error as error:
                    raise from_sqlite(error, self._path) from error

            yield version


class _Plain:
    """A transaction without questions, for the schema itself."""

    def __init__(self, connection: Any, _clock: Clock, _translate: Any) -> None:
        self.connection = connection
        self.failed: PenstockError | None = None


def _prepare(raw: Any, _record: Any) -> None:
    for pragma in ("foreign_keys = ON", "synchronous = FULL", "journal_size_limit = 67108864"):
        raw.execute(f"PRAGMA {pragma}")
