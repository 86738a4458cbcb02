"""What only PostgreSQL has: its clock, writers side by side, a server that goes away, passwords."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest
from tests.postgres import Server

from penstock.base.errors import (
    AccessDenied,
    BadInput,
    LeaseHeld,
    NewerSchema,
    StoreUnreachable,
    Unavailable,
)
from penstock.meta import Meta, open_meta, schema_of
from penstock.meta.postgres import schema
from penstock.meta.postgres import store as store_module
from penstock.meta.schema import HEAD
from penstock.records import Event, Lease

ELSEWHERE = "another-host/boot/1/1"  # nobody here can tell whether it lives


@pytest.fixture
def store(postgres: Server) -> Iterator[Meta]:
    opened = open_meta(postgres.fresh())
    yield opened
    opened.close()


def taken(store: Meta, key: str) -> Lease:
    with store.write() as tx:
        return tx.take_lease(key, ELSEWHERE, 60)


def beside(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def kinds(store: Meta) -> list[str]:
    with store.read() as db:
        return [event.kind for event in db.events()]


# the clock


def test_leases_go_by_the_clock_of_the_database(
    store: Meta, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(store, "run/1")
    truth = time.time()
    monkeypatch.setattr(time, "time", lambda: truth + 86400)  # this machine is a day ahead
    with store.write() as tx:
        assert abs(tx.now() - truth) < 30
        with pytest.raises(LeaseHeld):
            tx.take_lease("run/1", "me", 60)


# writers side by side, and what readers see of them


def test_holders_of_two_leases_write_at_one_moment_and_one_without_has_its_turn(
    store: Meta,
) -> None:
    one, two = taken(store, "run/1"), taken(store, "run/2")
    done: list[str] = []

    def write(name: str, lease: Lease | None, alone: bool = False) -> None:
        with store.write(lease, alone) as tx:
            tx.event("x", name)
        done.append(name)

    with store.write(one) as tx:
        tx.event("x", "one")
        beside(lambda: write("two", two)).join(20)
        assert done == ["two"]
        waiting = [
            beside(lambda: write("nobody's", None)),
            beside(lambda: write("alone", two, alone=True)),
        ]
        time.sleep(0.3)
        assert done == ["two"]
        done.append("one")
    for thread in waiting:
        thread.join(20)
    assert done[:2] == ["two", "one"] and sorted(done[2:]) == ["alone", "nobody's"]


def test_of_one_lease_there_is_one_writer_at_a_time(store: Meta) -> None:
    lease = taken(store, "run/1")
    order: list[str] = []

    def second() -> None:
        with store.write(lease):
            order.append("second")

    with store.write(lease):
        waiting = beside(second)
        time.sleep(0.3)
        order.append("first")
    waiting.join(20)
    assert order == ["first", "second"]


def test_a_reader_does_not_pass_a_transaction_that_is_still_open(store: Meta) -> None:
    """The later one commits first: a cursor behind its event would never see the earlier one's."""
    one, two = taken(store, "run/1"), taken(store, "run/2")
    with store.write(one) as early:
        early.event("x", "early")

        def late() -> None:
            with store.write(two) as tx:
                tx.event("x", "late")

        beside(late).join(20)
        with store.read() as db:
            assert (db.events(), db.last_event()) == ([], 0)
        assert store.wait_events(0, timeout=0.2) == []
    assert [event.kind for event in store.wait_events(0, timeout=20)] == ["early", "late"]


@pytest.mark.faults
def test_no_event_of_many_killed_writers_is_missed_or_seen_twice(
    store: Meta, chance: random.Random
) -> None:
    """Each tells of two things in a transaction; one of them is killed again and again."""

    def write_on(number: int) -> None:
        own = open_meta(store.url)
        with own.write() as tx:
            lease = tx.take_lease(f"run/{number}", f"{ELSEWHERE}{os.getpid()}", 0.0)
        for turn in range(10_000):
            with own.write(lease) as tx:
                tx.event(f"run/{number}", f"{os.getpid()} {turn}")
                tx.event(f"run/{number}", f"{os.getpid()} {turn} too")

    def start(number: int) -> int:
        child = os.fork()
        if child == 0:
            try:
                write_on(number)
            finally:
                os._exit(70)
        return child

    children = {number: start(number) for number in range(3)}
    followed: list[Event] = []
    try:
        end = time.monotonic() + 6
        while time.monotonic() < end:
            cursor = followed[-1].seq if followed else 0
            followed += store.wait_events(cursor, timeout=0.2)
            if chance.random() < 0.1:
                number = chance.randrange(3)
                os.kill(children[number], signal.SIGKILL)
                os.waitpid(children[number], 0)
                children[number] = start(number)
    finally:
        for child in children.values():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    while found := store.wait_events(followed[-1].seq if followed else 0, timeout=1):
        followed += found
    with store.read() as db:
        assert [event.seq for event in followed] == [e.seq for e in db.events(limit=1_000_000)]
    told = [event.kind for event in followed]
    assert len(told) > 100 and len(set(told)) == len(told)
    assert {f"{kind} too" for kind in told if not kind.endswith("too")} <= set(told)


# a server that goes away, a client that does not come back


@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_server_that_is_started_again_is_waited_for(how: signal.Signals) -> None:
    server = Server()
    try:
        store = open_meta(server.fresh())
        with store.write() as tx:
            tx.event("x", "before")
        with pytest.raises(Unavailable), store.write() as tx:
            tx.event("x", "never")
            server.stop(how)
        waiting = beside(lambda: _tell(store, "after"))
        time.sleep(1)
        assert waiting.is_alive()
        server.start()  # in this thread: it ends with the one that starts it
        waiting.join(60)
        assert kinds(store) == ["before", "after"]
        store.close()
    finally:
        server.close()


def test_a_server_that_is_not_there_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(StoreUnreachable, match=r"127.0.0.1:1/x does not answer"):
        open_meta("postgresql://tests@127.0.0.1:1/x")
    assert waited == []


@pytest.mark.faults
def test_a_client_that_stops_inside_its_transaction_frees_the_store(postgres: Server) -> None:
    soon = "?options=-c%20idle_in_transaction_session_timeout%3D300ms"
    stopped, other = open_meta(postgres.fresh() + soon), None
    try:
        other = open_meta(stopped.url)
        with pytest.raises(Unavailable), stopped.write() as tx:
            tx.event("x", "never")
            with_it = beside(lambda: _tell(other, "next"))
            time.sleep(1)  # as if it were stopped
            with_it.join(20)
            assert kinds(other) == ["next"]
        _tell(stopped, "again")
        assert kinds(other) == ["next", "again"]
    finally:
        for each in (stopped, other):
            if each is not None:
                each.close()


def _tell(store: Meta, kind: str) -> None:
    with store.write() as tx:
        tx.event("x", kind)


# what is there already


def test_a_newer_schema_is_refused_and_stays(postgres: Server) -> None:
    url = postgres.fresh()
    open_meta(url).close()
    database = url.rpartition("/")[2]
    postgres.ask("UPDATE alembic_version SET version_num = '9999'", database)
    with pytest.raises(NewerSchema, match="schema 9999"):
        open_meta(url)
    assert postgres.ask("SELECT version_num FROM alembic_version", database) == [("9999",)]


def test_looking_makes_no_table(postgres: Server) -> None:
    url = postgres.fresh()
    assert schema_of(url) is None
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert postgres.ask(tables, url.rpartition("/")[2]) == [(0,)]
    open_meta(url).close()
    assert schema_of(url) == HEAD


def test_tables_of_something_else_are_refused_and_a_schema_of_its_own_will_do(
    postgres: Server,
) -> None:
    url = postgres.fresh()
    database = url.rpartition("/")[2]
    postgres.ask("CREATE TABLE runs (mine int)", database)
    with pytest.raises(BadInput, match="not Penstock's: runs"):
        open_meta(url)
    postgres.ask("CREATE SCHEMA penstock", database)
    store = open_meta(url + "?options=-csearch_path%3Dpenstock")
    _tell(store, "here")
    store.close()
    assert postgres.ask("SELECT kind FROM penstock.events", database) == [("here",)]


def test_many_open_a_fresh_database_at_once(postgres: Server) -> None:
    url = postgres.fresh()
    opened: list[Meta] = []
    threads = [beside(lambda: opened.append(open_meta(url))) for _ in range(6)]
    for thread in threads:
        thread.join(60)
    assert len(opened) == 6
    for store in opened:
        store.close()


def test_a_migration_that_runs_elsewhere_is_said(postgres: Server) -> None:
    url = postgres.fresh()
    store = open_meta(url)
    with store.write():  # alone, as whoever migrates
        impatient = open_meta(url + "?options=-c%20lock_timeout%3D200ms")  # it is up to date
        with pytest.raises(Unavailable, match="may migrate it"), impatient.write():
            pass
        impatient.close()
    store.close()


@pytest.fixture
def behind(postgres: Server) -> Iterator[str]:
    """The URL of a database whose tables are those of an older Penstock."""
    url = postgres.fresh()
    open_meta(url).close()
    postgres.ask("UPDATE alembic_version SET version_num = '0003'", url.rpartition("/")[2])
    postgres.ask("DROP TABLE claims", url.rpartition("/")[2])
    assert schema_of(url) == "0003"
    yield url


def test_a_migration_by_somebody_else_is_waited_for_and_said(
    behind: str, postgres: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held by a session of its own for longer than nothing is said."""
    monkeypatch.setattr(logging.getLogger("penstock"), "propagate", True)
    with psycopg.connect(behind) as other:
        _alone(other)
        opened: list[Meta] = []
        waiting = beside(lambda: opened.append(open_meta(behind)))
        deadline = time.monotonic() + 30
        while "waiting: " not in caplog.text:
            assert time.monotonic() < deadline and not opened
            time.sleep(0.05)
        assert f"(pid {other.info.backend_pid} there" in caplog.text
        other.rollback()
        waiting.join(30)
    assert schema_of(behind) == HEAD
    opened[0].close()


def test_a_migration_that_does_not_end_is_one_clear_error_and_changes_nothing(
    behind: str, postgres: Server
) -> None:
    with psycopg.connect(behind) as other:
        _alone(other)
        with pytest.raises(Unavailable, match="cannot be made or migrated") as caught:
            open_meta(behind + "?options=-c%20lock_timeout%3D200ms")
        assert f"pid {other.info.backend_pid}" in caught.value.what
        assert "pg_terminate_backend" in caught.value.fix
    assert schema_of(behind) == "0003"


def _alone(other: psycopg.Connection) -> None:
    """As whoever migrates, with the same lock."""
    other.execute("SET idle_in_transaction_session_timeout = 0")
    other.execute(store_module._lock(store_module._STORE).removeprefix("; "))


def test_a_server_that_is_too_old_is_said(postgres: Server) -> None:
    """A session in which a function of that name tells of another version."""
    url = postgres.fresh()
    database = url.rpartition("/")[2]
    postgres.ask("CREATE SCHEMA other", database)
    postgres.ask(
        "CREATE FUNCTION other.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT CASE "
        "$1 WHEN 'server_version_num' THEN '130009' ELSE pg_catalog.current_setting($1) END $$",
        database,
    )
    with pytest.raises(Unavailable, match=r"PostgreSQL 13, which is too old\n.*14 or newer"):
        open_meta(url + "?options=-csearch_path%3Dother,pg_catalog,public")
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert postgres.ask(tables, database) == [(0,)]


@pytest.mark.parametrize("version", [140000, 150004, 180001])
def test_what_is_new_enough_is_taken(version: int) -> None:
    schema.check(version, "UTF8", "the store")


@pytest.mark.parametrize(
    ("version", "encoding", "kind", "told"),
    [(139999, "UTF8", Unavailable, "PostgreSQL 13"), (140000, "LATIN1", BadInput, "LATIN1")],
)
def test_what_is_older_or_holds_no_text_is_refused(
    version: int, encoding: str, kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        schema.check(version, encoding, "the store")


# who may come in


def test_a_wrong_password_is_refused_and_not_shown(postgres: Server) -> None:
    postgres.ask("DROP ROLE IF EXISTS locked")
    postgres.ask("CREATE ROLE locked LOGIN SUPERUSER PASSWORD 'right'")
    url = postgres.fresh().replace("tests@", "locked:{}@")
    with pytest.raises(AccessDenied, match="does not let this user in") as caught:
        open_meta(url.format("secret"))
    assert "secret" not in str(caught.value) + str(caught.value.as_dict())
    store = open_meta(url.format("right"))
    _tell(store, "in")
    again = open_meta(store.url)
    assert kinds(again) == ["in"]
    for each in (store, again):
        each.close()


@pytest.mark.parametrize(
    ("url", "kind", "says"),
    [
        ("postgresql://nobody@127.0.0.1:{}/postgres", AccessDenied, "does not let this user in"),
        ("postgresql://tests@127.0.0.1:{}/nothing", BadInput, "no such database"),
        ("postgresql://tests@127.0.0.1:{}", BadInput, "postgresql://USER@HOST"),
        ("postgresql://tests@127.0.0.1:port/x", BadInput, "postgresql://USER@HOST"),
        ("postgres://tests@127.0.0.1/x", BadInput, "postgresql"),
    ],
)
def test_what_cannot_be_opened_is_one_clear_error(
    postgres: Server, url: str, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says):
        open_meta(url.format(postgres.port))
