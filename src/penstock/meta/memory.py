"""The meta store in the memory of one process, for tests and trials; the contract is the same."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from penstock.base.clock import Clock
from penstock.base.errors import NotFound
from penstock.meta import schema
from penstock.meta.engine import SqlMeta
from penstock.meta.rows.whole import SqlReader, SqlWriter
from penstock.records import Lease

_numbers = itertools.count(1)
_open: WeakValueDictionary[str, MemoryMeta] = WeakValueDictionary()


def open_memory(name: str, clock: Clock) -> MemoryMeta:
    """A new store for an empty name; else the one of this process that has the name."""
    if not name:
        store = MemoryMeta(str(next(_numbers)), clock)
        _open[store.name] = store
        return store
    found = _open.get(name)
    if found is None:
        raise NotFound(
            f"memory://{name} is not a store of this process",
            "A store in memory ends with its process; use sqlite:///PATH to share one.",
            url=f"memory://{name}",
        )
    return found


class MemoryMeta(SqlMeta):
    """One connection, so one transaction at a time: readers take turns with writers.

    A read inside this thread's own write sees what it wrote. Ends when nobody holds it.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self._turn = threading.RLock()
        self._commits = 0
        engine = create_engine(
            "sqlite://",
            poolclass=StaticPool,
            connect_args={"isolation_level": None, "check_same_thread": False},
        )
        super().__init__(engine, clock)
        with engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            schema.create(connection)

    @property
    def url(self) -> str:
        return f"memory://{self.name}"

    @contextmanager
    def read(self) -> Iterator[SqlReader]:
        self._check_process()
        with self._turn:
            if (writer := getattr(self._mine, "writer", None)) is not None:
                yield writer
                return
            with self._transaction(SqlReader, "") as reader:
                yield reader

    @contextmanager
    def write(self, lease: Lease | None = None, alone: bool = False) -> Iterator[SqlWriter]:
        self._check_process()
        with self._turn:
            with super().write(lease, alone) as writer:
                yield writer
            self._commits += 1

    @contextmanager
    def _watch(self) -> Iterator[Any]:
        yield lambda: self._commits

    def close(self) -> None:
        """Nothing to do: others of this process may have opened the same store."""
