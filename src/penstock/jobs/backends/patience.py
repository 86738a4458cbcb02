"""A call that may take long, for a thread that has something to do meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

T = TypeVar("T")
Meanwhile = Callable[[], object]
_EVERY = 0.1  # seconds


def nothing() -> None:
    """Nothing to do meanwhile."""


def patiently(call: Callable[[], T], meanwhile: Meanwhile) -> T:
    """What the call gives or raises; it runs in a thread of its own.

    meanwhile  called several times a second in this thread, to renew a lease, say. What it raises
               is raised at once; the call then goes on, and nobody waits for it.
    """
    given: Future[T] = Future()

    def run() -> None:
        try:
            given.set_result(call())
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller gets it
            given.set_exception(error)

    threading.Thread(target=run, name="patience", daemon=True).start()
    while not wait([given], _EVERY).done:
        meanwhile()
    return given.result()
