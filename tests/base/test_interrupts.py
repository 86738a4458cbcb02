"""Ctrl-C is counted while it must not raise."""

from __future__ import annotations

import signal
import threading

import pytest

from penstock.base.interrupts import Interrupts, counted


def test_two_are_counted_and_the_third_raises() -> None:
    with pytest.raises(KeyboardInterrupt), counted() as interrupts:
        for wanted in (1, 2):
            signal.raise_signal(signal.SIGINT)
            assert interrupts.count == wanted
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_user_stays() -> None:
    heard = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with counted() as interrupts:
            signal.raise_signal(signal.SIGINT)
        assert heard == [signal.SIGINT] and interrupts.count == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_count_nothing_and_change_nothing() -> None:
    found: list[Interrupts] = []

    def work() -> None:
        with counted() as interrupts:
            found.append(interrupts)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0].count == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
