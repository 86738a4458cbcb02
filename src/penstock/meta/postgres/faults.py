"""What an error of PostgreSQL means in the family's words, by its SQLSTATE (appendix A)."""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from penstock.base.errors import (
    AccessDenied,
    BadInput,
    Conflict,
    Damaged,
    DiskFull,
    PenstockError,
    ReadOnly,
    StoreUnreachable,
    Unavailable,
)

_AWAY = ("08", "57P01", "57P02", "57P03", "57P05", "53300")  # gone, going, starting, idle, too many
_DENIED = ("28", "42501")


def from_sqlalchemy(error: SQLAlchemyError, shown: str) -> PenstockError:
    """The family's error for one of SQLAlchemy's over the store at `shown`."""
    original = error.orig if isinstance(error, StatementError) else None
    if isinstance(original, PenstockError):
        return original  # raised by a column type
    if isinstance(original, psycopg.Error):
        return from_psycopg(original, shown)
    if isinstance(error, PoolTimeout):
        return Unavailable(
            f"all connections of this process to {shown} stayed in use",
            "Too many threads use the store at once.",
        )
    return Unavailable(
        f"the meta store {shown} could not answer: {original or error}",
        "Is it used after its transaction ended? Otherwise run `penstock doctor`.",
    )


def from_psycopg(error: psycopg.Error, shown: str) -> PenstockError:
    """The family's error for one of the driver's."""
    state, said = error.sqlstate or "", _first_line(error)
    facts = {"store": shown, "sqlstate": state}
    if state.startswith("23"):
        return Conflict(
            f"a row contradicts what the store holds: {said}",
            "Does what it refers to exist (a run, a version), and is it not there already?",
        )
    if state == "53100":
        return DiskFull(
            f"no room left for the meta store {shown}; nothing was changed",
            "Free space on the database's machine, then run the same command again.",
            **facts,
        )
    if state == "25006":
        return ReadOnly(
            f"the meta store {shown} cannot be written: {said}",
            "Is it a standby? Point `meta` to the primary.",
            **facts,
        )
    if state in ("XX001", "XX002"):
        return Damaged(
            f"the meta store {shown} is damaged: {said}", "Restore it from a copy.", **facts
        )
    if state.startswith("22") and isinstance(error, psycopg.DataError):
        return BadInput(
            f"a value cannot be stored in {shown}: {said}", "Text has no zero byte.", **facts
        )
    if state == "55P03":
        return Unavailable(
            f"the meta store {shown} stayed locked by another process, which may migrate it",
            "SELECT * FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' "
            "tells who it is.",
            **facts,
        )
    return _not_there(error, state, said, shown)


def _not_there(error: psycopg.Error, state: str, said: str, shown: str) -> PenstockError:
    facts = {"store": shown, "sqlstate": state}
    connecting = not state and isinstance(error, psycopg.OperationalError)
    if state.startswith(_DENIED) or (connecting and _is_refusal(said)):
        return AccessDenied(
            f"the meta store {shown} does not let this user in: {said}",
            "Look at user and password: in the URL, in PGPASSWORD or in ~/.pgpass.",
            **facts,
        )
    missing = connecting and 'database "' in said and "does not exist" in said
    if missing or state == "3D000":
        return BadInput(
            f"the meta store {shown} has no such database",
            "Create it (createdb), or name another one in `meta`.",
            **facts,
        )
    if connecting or state.startswith(_AWAY):
        return StoreUnreachable(
            f"the meta store {shown} does not answer: {said}",
            "Is PostgreSQL running there, and may this machine connect? See `penstock doctor`.",
            **facts,
        )
    return Unavailable(
        f"the meta store {shown} failed: {said}",
        "Try again; if it goes on, look at the database's log.",
        **facts,
    )


def _is_refusal(said: str) -> bool:
    words = ("authentication failed", "no pg_hba.conf entry", "no password supplied")
    return any(word in said for word in words) or ('role "' in said and "not exist" in said)


def _first_line(error: psycopg.Error) -> str:
    """What the server said, without the statement."""
    primary = error.diag.message_primary
    text = primary or str(error).strip()
    return next((line for line in text.splitlines() if line.strip()), "no reason given")
