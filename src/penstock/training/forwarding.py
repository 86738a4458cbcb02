"""A run's scalars on their way out of the run folder: to TensorBoard files while it goes on, into
the blob store at its end."""

from __future__ import annotations

import threading
from pathlib import Path

from penstock.base import log
from penstock.base.errors import PenstockError
from penstock.jobs.stores import Stores
from penstock.signals import seal

_POLL = 1.0  # seconds
_log = log.logger("controller")


class Forwarding:
    """To TensorBoard, where the settings name a folder; otherwise nothing.

    Owns one daemon thread, so that the controller's loop never waits for files; `close` ends it
    after it has written what is left. What goes wrong is said once and never touches the run:
    its segments have everything, and the next forwarder continues from what the files hold.
    """

    def __init__(self, stores: Stores, run_id: str, name: str) -> None:
        self._segments = stores.layout.signals(run_id)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        if (folder := stores.settings.tensorboard) is not None:
            self._thread = threading.Thread(
                target=self._forward,
                args=(folder / f"{name}-{run_id}",),
                name="tensorboard",
                daemon=True,
            )
            self._thread.start()

    def close(self) -> None:
        """Nothing more will come: write all there is."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _forward(self, target: Path) -> None:
        from penstock.signals.tensorboard import Forwarder

        try:
            with Forwarder(self._segments, target) as forwarder:
                while not self._over.wait(_POLL):
                    forwarder.poll()
                forwarder.poll(final=True)
        except PenstockError as error:
            _log.warning("no TensorBoard files: %s", error, extra=log.facts(code=error.code))


def keep(stores: Stores, run_id: str) -> list[str]:
    """Store the segments of a run whose ranks are gone. Returns the blobs' digests.

    A store that has no room is no reason to fail a run: the segments stay where they are.
    """
    try:
        return seal(stores.layout.signals(run_id), stores.blobs)
    except PenstockError as error:
        _log.warning("signals were not stored: %s", error, extra=log.facts(code=error.code))
        return []
