"""Getting places for a gang, beside the controller, which has a lease to renew meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from penstock.base.errors import PenstockError, Unavailable
from penstock.jobs.backends.places import Places, Wish

Told = Callable[[object, str, Any], None]
_LOOK = 2.0  # seconds between two looks for places that are taken away


class Placing:
    """One thread, which ends when it has told "placed" or "failed", or soon after `cancel`.

    tell   ("waits", what for), ("placed", places), ("failed", error); from the thread
    """

    def __init__(self, places: Places, wish: Wish, tell: Told, after: float = 0.0) -> None:
        """after: seconds until it asks"""
        self._places, self._wish, self._tell, self._after = places, wish, tell, after
        self._over = threading.Event()
        threading.Thread(target=self._want, name="placing", daemon=True).start()

    def cancel(self) -> None:
        """What it still gets is told all the same, to be used or given back."""
        self._over.set()

    def _want(self) -> None:
        def waits(what: dict[str, Any]) -> None:
            self._tell(self, "waits", what)

        if self._over.wait(self._after):
            return
        try:
            found = self._places.want(self._wish, waits, self._over.is_set)
        except PenstockError as error:
            self._tell(self, "failed", error)
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for the answer
            self._tell(self, "failed", Unavailable(f"no place can be had: {error!r}"))
        else:
            self._tell(self, "placed", found)


class Leaving:
    """One thread, until `close`: tells ("leaving", {name: seconds}) while some are taken away."""

    def __init__(self, places: Places, tell: Told) -> None:
        self._places, self._tell = places, tell
        self._over = threading.Event()
        threading.Thread(target=self._look, name="leaving", daemon=True).start()

    def close(self) -> None:
        self._over.set()

    def _look(self) -> None:
        while not self._over.wait(_LOOK):
            try:
                found = self._places.leaving()
            except PenstockError:  # whoever wants a place hears of it
                continue
            if found and not self._over.is_set():
                self._tell(self, "leaving", found)
