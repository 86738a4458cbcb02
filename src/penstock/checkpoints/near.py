"""A far store with copies of some of its blobs on this machine, for who reads checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from penstock.base import log
from penstock.base.errors import Damaged, NotFound
from penstock.blobs import Blobs
from penstock.checkpoints.staged import Staged

_log = log.logger("checkpoint")


class Near:
    """Reads the copy where there is one, else the store. A copy that turns out not to be what it
    was is removed, and the store read (`distrust`); nothing that was not verified is given to
    anybody, because `read_chunks` compares every chunk's hash.

    folder   with the copies
    fetched  blobs that were asked of the store
    """

    def __init__(self, folder: Path, store: Blobs) -> None:
        self.folder = folder
        self._staged = Staged(folder)
        self._store = store
        self.fetched = 0

    def get(self, digest: str) -> bytes:
        try:
            return self._staged.blobs.get(digest)
        except NotFound:
            pass
        except Damaged:
            self.distrust(digest)
        self.fetched += 1
        return self._store.get(digest)

    @contextmanager
    def open(self, digest: str) -> Iterator[BinaryIO]:
        with ExitStack() as stack:
            try:
                stream = stack.enter_context(self._staged.blobs.open(digest))
            except NotFound:
                self.fetched += 1
                stream = stack.enter_context(self._store.open(digest))
            yield stream

    def distrust(self, digest: str) -> bool:
        """Remove the copy. Whether there was one, so that reading again reads the store."""
        if not self._staged.remove(digest):
            return False
        _log.warning(
            "a copy on this disk is damaged; reading the store", extra=log.facts(blob=digest)
        )
        return True
