"""Which schema a file has, and bringing it to ours: made when fresh, migrated when older.

The version is Alembic's own row. It is compared before SQLAlchemy or Alembic are imported, so
that opening a store that is up to date costs one small question; and through a read-only
connection, so that a store of a newer Penstock stays as it is, byte for byte.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from penstock.base.errors import BadInput, NewerSchema, Unavailable

if TYPE_CHECKING:
    from sqlalchemy import Connection

HEAD = "0004"  # the newest file in migrations/versions
PATIENCE = 60.0  # seconds to wait for another process's transaction


def found_in(path: Path) -> str | None:
    """The schema version of the file at `path`, None when there is none yet.

    Raises NewerSchema, and BadInput when the file is a database of something else. May raise
    sqlite3.Error.
    """
    if not path.exists() or path.stat().st_size == 0:
        return None
    uri = f"file:{quote(str(path))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=PATIENCE)) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        if "alembic_version" in names:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return known("0000" if row is None else row[0], str(path), "home", path=str(path))
    if names:
        raise BadInput(
            f"{path} is an SQLite database, but not Penstock's",
            "Set `home` or `meta` to another place.",
            path=str(path),
        )
    return None


def known(version: str, where: str, kind: str, **facts: Any) -> str:
    """The version, where it is ours or older. Raises NewerSchema; `kind` is what else to use."""
    if version.isdigit() and version <= HEAD:
        return version
    raise NewerSchema(
        f"{where} was written by a newer Penstock (schema {version}, this one knows {HEAD}); "
        "it was left untouched",
        f"Update Penstock, or use another {kind}.",
        **facts,
        found=version,
        known=HEAD,
    )


def create(connection: Connection) -> None:
    """Make every table of a fresh store, as all migrations together would.

    Half a second faster than running them, as Alembic need not be imported; a test holds the
    two equal.
    """
    from penstock.meta.tables import metadata, version_table

    version_table.create(connection)
    metadata.create_all(connection, checkfirst=False)
    connection.execute(version_table.insert().values(version_num=HEAD))


def migrate(connection: Connection, target: str = "head") -> None:
    """Run the migrations that are missing, inside the caller's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "penstock.meta:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, target)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let one process at a time change a schema in `folder`; the kernel frees it at death.

    A lock on the folder itself leaves no file behind, and opening the database's own file for
    it would drop SQLite's locks at closing (sqlite.org/howtocorrupt.html, 2.2).
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"another process has been changing the schema in {folder} for "
                    f"{PATIENCE:.0f} s",
                    "Is it stopped? End it, then run again.",
                    path=str(folder),
                ) from None
        time.sleep(0.01)
