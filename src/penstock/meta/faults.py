"""What a database error means in the family's words."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from sqlalchemy.exc import IntegrityError, SQLAlchemyError, StatementError

from penstock.base.errors import (
    Conflict,
    Damaged,
    DiskFull,
    PenstockError,
    ReadOnly,
    Unavailable,
)

_LITTLE = 1 << 16  # bytes: too little for SQLite's shared-memory file and one page


def from_sqlalchemy(error: SQLAlchemyError, path: Path | None) -> PenstockError:
    """The family's error for one of SQLAlchemy's over SQLite at `path` (None: in memory)."""
    original = error.orig if isinstance(error, StatementError) else None
    if isinstance(original, PenstockError):
        return original  # raised by a column type
    if isinstance(error, IntegrityError):
        return Conflict(
            f"a row contradicts what the store holds: {original}",
            "Does what it refers to exist (a run, a version), and is it not there already?",
        )
    if isinstance(original, sqlite3.Error):
        return from_sqlite(original, path)
    return Unavailable(
        f"the meta store could not answer: {original or error}",
        "Is it used after its transaction ended? Otherwise run `penstock doctor`.",
    )


def from_sqlite(error: sqlite3.Error, path: Path | None) -> PenstockError:
    """The family's error for one of sqlite3's, by its result code (sqlite.org/rescode.html)."""
    code = getattr(error, "sqlite_errorcode", None)
    code = None if code is None else code & 0xFF
    where = str(path or "memory")
    facts = {"path": where, "sqlite": getattr(error, "sqlite_errorname", str(error))}
    if code == sqlite3.SQLITE_FULL or _is_full(path, code):
        return DiskFull(
            f"no room left for the meta store {where}; nothing was changed",
            "Free space, then run the same command again.",
            **facts,
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM) or _is_read_only(path, code):
        return read_only(path)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(
            f"the meta store {where} stayed locked by another process",
            "See who uses the home (`penstock runs pids`), then try again.",
            **facts,
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Damaged(
            f"{where} is not a sound SQLite database: {error}",
            "Restore it from a copy; `sqlite3 FILE .recover` saves what can be saved.",
            **facts,
        )
    return Unavailable(
        f"the meta store {where} failed: {error}",
        "Look at the disk and the mount; `penstock doctor` helps.",
        **facts,
    )


def read_only(path: Path | None) -> ReadOnly:
    """The error for a store in a folder that cannot be written."""
    return ReadOnly(
        f"the meta store {path} cannot be written",
        "Make its folder writable for this user, or set `home` (PENSTOCK_HOME) to one that is.",
        path=str(path),
    )


def _is_full(path: Path | None, code: int | None) -> bool:
    """SQLite tells of a full disk as an I/O error when it grows its shared-memory file."""
    if path is None or code not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return False
    try:
        free = os.statvfs(path.parent)
    except OSError:
        return False
    return free.f_bavail * free.f_frsize < _LITTLE or (free.f_files > 0 and free.f_ffree == 0)


def _is_read_only(path: Path | None, code: int | None) -> bool:
    return (
        path is not None
        and code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR)
        and not os.access(path.parent, os.W_OK)
    )
