"""The URL of a store in PostgreSQL: read, and shown without its password."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from penstock.base.errors import BadInput

_OPTIONS = {  # of every session; seconds. The URL's `options` come after these, and win
    "idle_in_transaction_session_timeout": "5s",  # a client that is stopped frees its locks
    "lock_timeout": "30s",
    "statement_timeout": "60s",
    "tcp_keepalives_idle": "5",  # likewise one whose machine is gone
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
_CLIENT = {
    "connect_timeout": "5",
    "application_name": "penstock",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",  # milliseconds
}


def read(url: str) -> URL:
    """Raises BadInput."""
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        raise _unreadable() from None
    if not found.database:
        raise _unreadable()
    return found.set(drivername="postgresql+psycopg")


def _unreadable() -> BadInput:
    return BadInput(
        "the URL of a meta store in PostgreSQL is postgresql://USER@HOST:PORT/DATABASE",
        "A password may stand in ~/.pgpass or PGPASSWORD; ?sslmode=require and such may follow.",
    )


def shown(url: URL) -> str:
    """For people: a password is "***"."""
    return url.set(drivername="postgresql").render_as_string(hide_password=True)


def connecting(url: URL) -> dict[str, Any]:
    """What libpq is told beside what the URL says."""
    own = " ".join(f"-c {name}={value}" for name, value in _OPTIONS.items())
    theirs = url.query.get("options", "")
    theirs = theirs if isinstance(theirs, str) else " ".join(theirs)
    told = {name: value for name, value in _CLIENT.items() if name not in url.query}
    return {**told, "options": f"{own} {theirs}".strip()}
