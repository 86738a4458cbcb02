"""The feed of events: commit order, cursors, waiting."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from penstock.base.clock import ManualClock
from penstock.meta import Meta, open_meta
from penstock.records import Event


def _tell(meta: Meta, *kinds: str, subject: str = "run/1") -> None:
    for kind in kinds:
        with meta.write() as writer:
            writer.event(subject, kind)


def test_events_come_in_order_after_a_cursor(meta: Meta, clock: ManualClock) -> None:
    with meta.write() as writer:
        first = writer.event("run/1", "run.started", {"attempt": 1})
        second = writer.event("run/2", "run.started")
    assert second > first > 0
    with meta.read() as reader:
        assert reader.events() == [
            Event(first, clock.wall(), "run/1", "run.started", {"attempt": 1}),
            Event(second, clock.wall(), "run/2", "run.started", {}),
        ]
        assert [event.seq for event in reader.events(after=first)] == [second]
        assert reader.events(after=second) == []
        assert [event.seq for event in reader.events(limit=1)] == [first]
        assert reader.last_event() == second


def test_a_fresh_store_has_no_events(meta: Meta) -> None:
    with meta.read() as reader:
        assert (reader.events(), reader.last_event()) == ([], 0)


def test_a_subject_may_be_exact_or_a_prefix(meta: Meta) -> None:
    for subject in ("run/1", "run/12", "Run/1", "model/x", "run_1", "run%"):
        _tell(meta, "x", subject=subject)
    asked = {
        "run/1": ["run/1"],
        "run/*": ["run/1", "run/12"],
        "run_*": ["run_1"],
        "run%*": ["run%"],
        "*": ["run/1", "run/12", "Run/1", "model/x", "run_1", "run%"],
        "nobody": [],
    }
    with meta.read() as reader:
        found = {text: [event.subject for event in reader.events(subject=text)] for text in asked}
    assert found == asked


def test_an_event_of_a_failed_transaction_is_never_seen(meta: Meta) -> None:
    _tell(meta, "before")
    with pytest.raises(RuntimeError), meta.write() as writer:
        writer.event("run/1", "never")
        raise RuntimeError
    _tell(meta, "after")
    with meta.read() as reader:
        assert [event.kind for event in reader.events()] == ["before", "after"]


def test_a_reader_that_follows_never_misses_an_event_of_many_threads(meta: Meta) -> None:
    writers = [threading.Thread(target=_tell, args=(meta, *"0123456789")) for _ in range(6)]
    followed: list[int] = []

    def follow() -> None:
        while len(followed) < 60:
            cursor = followed[-1] if followed else 0
            found = meta.wait_events(cursor, timeout=20)
            assert found, "an event was missed"
            followed.extend(event.seq for event in found)

    reader = threading.Thread(target=follow)
    for thread in [reader, *writers]:
        thread.start()
    for thread in [reader, *writers]:
        thread.join()
    with meta.read() as view:
        assert followed == [event.seq for event in view.events()]
    assert followed == sorted(set(followed))


@pytest.mark.faults
def test_a_reader_that_follows_never_misses_an_event_of_other_processes(shared_meta: Meta) -> None:
    def write_ten() -> None:
        store = open_meta(shared_meta.url)
        _tell(store, *"0123456789", subject=f"process/{os.getpid()}")
        store.close()

    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            try:
                write_ten()
                os._exit(0)
            finally:
                os._exit(70)
        children.append(child)
    followed: list[Event] = []
    while len(followed) < 30:
        cursor = followed[-1].seq if followed else 0
        found = shared_meta.wait_events(cursor, timeout=30)
        assert found, "an event was missed"
        followed.extend(found)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    seqs = [event.seq for event in followed]
    assert seqs == sorted(set(seqs))
    for subject in {event.subject for event in followed}:
        mine = [event.kind for event in followed if event.subject == subject]
        assert mine == list("0123456789")


def test_waiting_ends_empty_when_nothing_happens(meta: Meta) -> None:
    _tell(meta, "before")
    with meta.read() as reader:
        last = reader.last_event()
    assert meta.wait_events(last, timeout=0.03) == []
    assert meta.wait_events(last, timeout=0) == []


def test_waiting_returns_at_once_what_is_there(meta: Meta) -> None:
    _tell(meta, "a", "b")
    assert [event.kind for event in meta.wait_events(0, timeout=0)] == ["a", "b"]
    assert [event.kind for event in meta.wait_events(0, timeout=9, limit=1)] == ["a"]


def test_waiting_for_one_subject_passes_over_others(meta: Meta) -> None:
    found: list[Event] = []
    waiter = threading.Thread(
        target=lambda: found.extend(meta.wait_events(0, subject="run/1", timeout=30))
    )
    waiter.start()
    _tell(meta, "other", subject="run/2")
    _tell(meta, "mine")
    waiter.join()
    assert [event.kind for event in found] == ["mine"]


def test_a_commit_of_another_process_wakes_the_waiter(
    shared_meta: Meta, in_child: Callable[..., int]
) -> None:
    def tell() -> None:
        store = open_meta(shared_meta.url)
        _tell(store, "woken")
        os._exit(0)

    teller = threading.Thread(target=in_child, args=(tell,))
    teller.start()
    [event] = shared_meta.wait_events(0, timeout=60)
    teller.join()
    assert event.kind == "woken"
