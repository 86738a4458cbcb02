"""Ids sort by when they were made, in one process and over a fork."""

from __future__ import annotations

import os
import threading

from penstock.base import ids
from penstock.base.ids import new_id


def test_ids_sort_in_the_order_in_which_they_were_made():
    made = [new_id("run") for _ in range(5000)]
    assert made == sorted(made)
    assert len(set(made)) == 5000


def test_ids_sort_even_when_the_clock_goes_back(monkeypatch):
    first = new_id()
    monkeypatch.setattr(ids.time, "time_ns", lambda: 0)
    assert new_id() > first


def test_ids_are_fit_for_file_names():
    made = new_id("run")
    assert made.startswith("run-") and len(made) == 30
    assert set(made[4:]) <= set("0123456789abcdefghjkmnpqrstvwxyz")
    assert len(new_id()) == 26


def test_threads_never_share_an_id():
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.extend(new_id() for _ in range(1000)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 4000


def test_a_forked_child_does_not_go_on_in_its_parents_sequence():
    before = new_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, " ".join(new_id() for _ in range(50)).encode())
        os._exit(0)
    os.close(writing)
    mine = [new_id() for _ in range(50)]
    with os.fdopen(reading) as stream:
        theirs = stream.read().split()
    assert os.waitpid(child, 0)[1] == 0
    assert len(theirs) == 50
    assert theirs == sorted(theirs)
    assert len({before, *mine, *theirs}) == 101
