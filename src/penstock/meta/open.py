"""From a URL to a meta store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from penstock.base.clock import Clock, SystemClock
from penstock.base.errors import BadInput, MissingExtra
from penstock.base.nearest import did_you_mean
from penstock.meta import schema
from penstock.meta.port import Meta

if TYPE_CHECKING:
    from penstock.meta.postgres.store import PostgresMeta

SCHEMES = ("sqlite", "postgresql", "memory")


def open_meta(url: str, clock: Clock | None = None) -> Meta:
    """Open the store at `url`, making or migrating its schema when need be.

    sqlite:///PATH  a file, taken literally (no percent escapes); four slashes when absolute
    postgresql://USER@HOST:PORT/DATABASE  for many machines; options of libpq may follow
    memory://       a new store in this process; its own `url` finds it again in this process
    clock           what `now` and the leases go by; for tests. Default: this machine's, and of
                    PostgreSQL the database's own

    Raises BadInput, NetworkHome, NewerSchema, ReadOnly, DiskFull, Damaged, StoreUnreachable,
    AccessDenied, MissingExtra, Unavailable.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES:
        raise BadInput(
            f'"{_without_password(url)}" is not the URL of a meta store that Penstock knows',
            did_you_mean(scheme, SCHEMES)
            + " Write sqlite:///PATH, postgresql://USER@HOST/DATABASE or memory://.",
            scheme=scheme,
        )
    if scheme == "postgresql":
        return _open_postgres(url, clock)
    clock = clock or SystemClock()
    if scheme == "memory":
        from penstock.meta.memory import open_memory

        return open_memory(rest, clock)
    if not rest.startswith("/") or not rest[1:]:
        raise BadInput(
            f'"{url}" has no path',
            "Write sqlite:////absolute/path/meta.db (four slashes) or sqlite:///relative.db.",
            url=url,
        )
    from penstock.meta.sqlite import SqliteMeta

    return SqliteMeta(Path(rest[1:]).absolute(), clock)


def schema_of(url: str) -> str | None:
    """The schema version of the store at `url`, None where there is none yet. Changes nothing.

    Raises what `open_meta` raises.
    """
    if url.startswith("postgresql://"):
        store = open_to_look(url)
        store.close()
        return store.found
    if url.startswith("sqlite:///"):
        return schema.found_in(Path(url.removeprefix("sqlite:///")).absolute())
    return schema.HEAD


def open_to_look(url: str) -> PostgresMeta:
    """A store in PostgreSQL as it is: nothing is made or migrated. Raises what `open_meta` does."""
    return _open_postgres(url, None, look=True)


def _open_postgres(url: str, clock: Clock | None, look: bool = False) -> PostgresMeta:
    try:
        import psycopg  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra(
            "a meta store in PostgreSQL needs psycopg, which is not installed",
            'pip install "penstock[postgres]"',
        ) from None
    from penstock.meta.postgres.store import PostgresMeta

    return PostgresMeta(url, clock, look)


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"…@{tail}" if at and head else url
