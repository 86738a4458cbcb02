"""Checkpoints of a run that this machine's disk holds and no row refers to yet, as its controller
sees them. Nothing here commits: that is the work's, under the lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from penstock.base import log
from penstock.base.errors import PenstockError
from penstock.blobs import Blobs
from penstock.checkpoints import Near, Note, Staged
from penstock.checkpoints.staged import Name
from penstock.jobs.work import Control
from penstock.records import Checkpoint
from penstock.training.choosing import is_far
from penstock.training.committing import Assembled, assembled

PATIENCE = 300.0  # seconds that a run's end waits for the next part to arrive
_MOMENT = 0.02  # seconds for which the controller's loop waits for a manifest to be stored
_COLLECTED = 1800.0  # seconds after which what nobody refers to may be on its way out of the store
_Key = tuple[int, int]  # attempt, step
_log = log.logger("controller")


class UnderWay:
    """One run's; called by one thread. Where the store is not a far one: nothing, ever."""

    def __init__(self, control: Control, source: str | None) -> None:
        self._control, self._source = control, source
        stores = control.stores
        self._staged = Staged(stores.layout.staged) if is_far(stores.blobs.url) else None
        self._putting: tuple[_Key, Assembled, list[dict[str, Any]], _Putting] | None = None
        self._deadline: float | None = None  # of the run's end
        self._left: list[Name] = []  # what was noted when it was set

    @property
    def is_used(self) -> bool:
        return self._staged is not None

    def near(self) -> Near | None:
        """The store behind the copies of this machine, to read from."""
        if self._staged is None:
            return None
        return Near(self._control.stores.layout.staged, self._control.stores.blobs)

    # -- to go on from --------------------------------------------------------------------------

    def keys(self) -> set[_Key]:
        """Those that are whole on this disk."""
        return {notes[0].key for notes in self._whole()}

    def rows(self) -> list[Checkpoint]:
        """The same, as if they were committed, their manifests on this disk too."""
        return [row for notes in self._whole() if (row := self._row(notes)) is not None]

    def _row(self, notes: list[Note]) -> Checkpoint | None:
        bodies = [note.body for note in notes]
        found = assembled(self._control, notes[0].step, bodies, self._source)
        if (digest := self.copy(found.manifest)) is None:
            return None
        metrics, generation = found.extra["metrics"], self._control.generation
        return Checkpoint(
            self._control.run_id, found.step, digest, generation, 0.0, found.size, metrics
        )

    def copy(self, manifest: bytes) -> str | None:
        """A manifest beside the parts, so that none of it need be fetched. None: no room."""
        try:
            return self._staged.blobs.put(manifest) if self._staged is not None else None
        except PenstockError as error:
            _log.warning("a manifest has no copy here: %s", error, extra=log.facts(code=error.code))
            return None

    # -- to be committed ------------------------------------------------------------------------

    def add(self, body: dict[str, Any]) -> None:
        """A part that is in the store and was never on this disk, which had no room. One checkpoint
        may consist of parts of both kinds.

        body  what the checkpoint writer says of it
        """
        if self._staged is not None:
            self._staged.add(self._control.run_id, body)

    def arrived(self) -> tuple[_Key, Assembled, list[dict[str, Any]]] | None:
        """The oldest one that is in the store, with its manifest and the parts' descriptions.

        A thread puts the manifest there: whoever asks waits for a moment and not for a store that
        is away. None: there is none, or not yet."""
        if self._staged is None:
            return None
        if self._putting is None and (notes := self._staged.arrived(self._control.run_id)):
            parts = [note.body for note in notes]
            found = assembled(self._control, notes[0].step, parts, self._source)
            self.copy(found.manifest)
            old = min(note.at for note in notes) < time.time() - _COLLECTED
            putting = _Putting(self._control.stores.blobs, found, look=old)
            self._putting = (notes[0].key, found, parts, putting)
        if self._putting is None:
            return None
        key, found, parts, putting = self._putting
        return (key, found, parts) if putting.done.wait(_MOMENT) else None

    @property
    def is_putting(self) -> bool:
        """Whether a manifest was on its way when `arrived` was last asked."""
        return self._putting is not None

    def drop(self, which: Callable[[_Key], bool]) -> None:
        """Nothing is to become of these any more, or a row has become of them."""
        if self._staged is None:
            return
        gone = [name for name in self._staged.names(self._control.run_id) if which(name.key)]
        if gone:
            self._staged.drop(self._control.run_id, gone)
        if self._putting is not None and which(self._putting[0]):
            self._putting = None

    def is_waited_for(self, patience: float = PATIENCE) -> bool:
        """Whether the end of the run is to wait for some that are on their way: while parts arrive,
        and for so many seconds after the last one did."""
        names = self._staged.names(self._control.run_id) if self._staged is not None else []
        if not names:
            return False
        now = time.monotonic()
        if self._deadline is None:
            steps = sorted({name.step for name in names})
            self._control.event("checkpoints.awaited", {"steps": steps, "seconds": patience})
        if self._deadline is None or names != self._left:
            self._deadline, self._left = now + patience, names
        return now < self._deadline

    def _whole(self) -> list[list[Note]]:
        return self._staged.whole(self._control.run_id) if self._staged is not None else []


class _Putting:
    """A thread that puts one manifest, and tries again until it is there; it ends with the process.

    look  what was stored long ago may have been collected since, as nothing refers to it: then the
          checkpoint writer stores it anew, which is waited for
    """

    def __init__(self, store: Blobs, found: Assembled, look: bool) -> None:
        self.done = threading.Event()
        self._store, self._found, self._look = store, found, look
        threading.Thread(target=self._work, name="manifest", daemon=True).start()

    def _work(self) -> None:
        while not self.done.is_set():
            try:
                if not self._look or all(map(self._store.exists, self._found.refs)):
                    self._store.put(self._found.manifest)
                    self.done.set()
                    return
            except PenstockError as error:
                _log.warning("a manifest waits: %s", error, extra=log.facts(code=error.code))
            time.sleep(1.0)
