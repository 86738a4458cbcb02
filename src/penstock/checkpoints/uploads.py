"""Staged parts on their way to the far store: one after the other, however long that takes."""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from penstock.base.errors import Damaged, NotFound, PenstockError, Unavailable
from penstock.base.files import os_errors
from penstock.base.log import facts, logger
from penstock.blobs import Blobs
from penstock.checkpoints.staged import Note, Staged

MOST = 16  # checkpoints of a run that may be on their way
_LONGEST_PAUSE = 15.0  # seconds between two tries, beside what the store's own tries take
_LOOK = 0.5  # seconds between two looks whether there is room
_log = logger("checkpoint")


class Uploads:
    """One run's, by its checkpoint writer: a thread, which begins with what is noted already.

    tell  is given, of each part that arrived or never will, {"gang", "step", "rank", "staged":
          True}, with "error" of the latter; and once, with "delayed", when the store refuses. It
          ends the thread by a ConnectionError
    most  checkpoints on their way; who wants to add another one waits

    A part that the store refuses is tried again until it is taken, and those behind it wait: so
    checkpoints are committed in their order.
    """

    def __init__(
        self,
        staged: Staged,
        run_id: str,
        store: Blobs,
        tell: Callable[[dict[str, Any]], None],
        most: int = MOST,
    ) -> None:
        self._staged, self._run_id, self._store, self._tell = staged, run_id, store, tell
        self._most = most
        self._changed = threading.Condition()
        self._queue = deque(staged.notes(run_id))
        self._thread = threading.Thread(target=self._work, name="penstock-uploads", daemon=True)
        self._thread.start()

    def add(self, note: Note) -> None:
        with self._changed:
            if all(note.name[:3] != each.name[:3] for each in self._queue):
                self._queue.append(note)
                self._changed.notify_all()

    def wait_for_room(self, nbytes: int) -> bool:
        """Until another part of this size may be staged; says so when that takes time.

        False: nothing is on its way any more, and still there is no room for it on this disk.
        """
        began, said = time.monotonic(), False
        while not (room := self._has_room(nbytes)) and self._queue:
            if not said:
                said = True
                _log.warning(
                    "waiting until the object store has taken checkpoints",
                    extra=facts(on_their_way=self.count(), most=self._most, bytes=nbytes),
                )
            with self._changed:
                self._changed.wait(_LOOK)
        if said:
            _log.info("going on", extra=facts(waited=round(time.monotonic() - began, 1)))
        return room

    def count(self) -> int:
        """Checkpoints on their way."""
        with self._changed:
            return len({note.key for note in self._queue})

    def settle(self) -> None:
        """Wait until nothing is on its way."""
        with self._changed:
            while self._queue:
                self._changed.wait(_LOOK)

    def _has_room(self, nbytes: int) -> bool:
        return self.count() < self._most and self._staged.make_room(nbytes)

    # -- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while True:
                with self._changed:
                    while not self._queue:
                        self._changed.wait()
                    note = self._queue[0]
                self._see_to(note)
                with self._changed:
                    self._queue.popleft()
                    self._changed.notify_all()
        except ConnectionError:
            return  # the agent is gone, and this process follows it

    def _see_to(self, note: Note) -> None:
        """Until it is stored, is given up, or is not wanted any more."""
        name = note.name
        about = {"gang": name.gang, "step": name.step, "rank": name.rank, "staged": True}
        pause, told = 0.5, False
        while self._staged.has(self._run_id, name):
            try:
                self._upload(note)
            except (Damaged, NotFound) as error:
                self._staged.drop(self._run_id, [name])
                self._tell({**about, "error": error.as_dict()})
                return
            except Exception as error:  # noqa: BLE001 - a thread that ended would delay all for ever
                if not told:
                    told = True
                    self._tell({**about, "delayed": _told(error)})
                    _log.warning("a checkpoint waits: %s", error, extra=facts(step=note.step))
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._staged.stored(self._run_id, name)
                self._tell(about)
                return

    def _upload(self, note: Note) -> None:
        """Raises Damaged, NotFound of the copy here, and what the store raises."""
        if note.stored and self._store.exists(note.blob):
            return  # not collected since, as what nobody refers to may be
        path = self._staged.blobs.path(note.blob)
        assert path is not None  # a folder has files
        with os_errors("reading a checkpoint", path), path.open("rb") as stream:
            empty = os.fstat(stream.fileno()).st_size == 0
            data = b"" if empty else mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        found = self._store.put(memoryview(data), mend=True)  # the map goes with its last user
        if found != note.blob:  # what was put now is nobody's, and collected
            raise Damaged(
                f"the part of rank {note.rank} of checkpoint {note.step} changed on this disk",
                "The checkpoint before it is used; look at the disk.",
                path=str(path),
            )


def _told(error: Exception) -> dict[str, Any]:
    if not isinstance(error, PenstockError):
        error = Unavailable(f"an upload failed: {error!r}", "Look at the log of the writer.")
    return error.as_dict()
