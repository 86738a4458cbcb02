"""The tables: made when there are none, migrated when they are older; by one process at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import inspect

from penstock.base.errors import BadInput, Unavailable
from penstock.meta import schema

if TYPE_CHECKING:
    from sqlalchemy import Connection

_VERSION_IS_THERE = """
    SELECT count(*) FROM pg_class WHERE relname = 'alembic_version' AND pg_table_is_visible(oid)
"""
OLDEST = 140000  # server_version_num: what xid8 and our settings need, and who is still cared for


def check_server(connection: Connection, shown: str) -> None:
    """Raises what `check` raises."""
    ask = "SELECT current_setting('server_version_num')::int, current_setting('server_encoding')"
    version, encoding = connection.exec_driver_sql(ask).one()
    check(version, encoding, shown)


def check(version: int, encoding: str, shown: str) -> None:
    """Raises Unavailable for a server that is too old, BadInput for one that cannot hold text.

    version  server_version_num: 140011 of 14.11

    >>> check(140000, "UTF8", "the store")
    """
    if version < OLDEST:
        raise Unavailable(
            f"the meta store {shown} is PostgreSQL {version // 10000}, which is too old",
            f"Penstock needs {OLDEST // 10000} or newer.",
            found=version,
        )
    if encoding != "UTF8":
        raise BadInput(
            f"the database of {shown} is encoded as {encoding}",
            "Create one with createdb --encoding=UTF8 --template=template0.",
            found=encoding,
        )


def found_in(connection: Connection, shown: str) -> str | None:
    """The version of the tables that are found first, None when there are none.

    Raises NewerSchema, and BadInput where there are tables of something else.
    """
    # By the catalogue's rows: what a session remembers of names may be older than its transaction,
    # when it waited for a lock while another one made the tables.
    if connection.exec_driver_sql(_VERSION_IS_THERE).scalar_one():
        row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
        version = "0000" if row is None else row[0]
        return schema.known(version, shown, "database", store=shown)
    from penstock.meta.tables import metadata

    if taken := sorted(metadata.tables.keys() & set(inspect(connection).get_table_names())):
        raise BadInput(
            f"{shown} has tables that are not Penstock's: {', '.join(taken)}",
            "Take a database of its own, or a schema: ?options=-csearch_path%3Dpenstock",
            tables=taken,
        )
    return None


def bring_up(connection: Connection, shown: str) -> None:
    """Make or migrate the tables, in the caller's transaction, which is alone."""
    found = found_in(connection, shown)
    if found is None:
        schema.create(connection)
    elif found != schema.HEAD:
        schema.migrate(connection)
