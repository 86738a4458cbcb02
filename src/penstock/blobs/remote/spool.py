"""Bytes of unknown length and digest on their way to a store: in memory, then in a file.

An object's name is its digest, so all of it must have been seen before the first byte is sent;
and what is sent again after a failure must be the same bytes.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
from types import TracebackType
from typing import BinaryIO

from penstock.base.files import os_errors
from penstock.base.hashing import Hasher

IN_MEMORY = 32 << 20  # bytes; more goes to a file without a name in TMPDIR


class Spool:
    """Owns the file, which has no name and ends with its process. Raises DiskFull, ReadOnly."""

    def __init__(self) -> None:
        self._memory = bytearray()
        self._file: BinaryIO | None = None
        self._hasher = Hasher()

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()  # a map of it stays valid until nobody holds it

    def fill(self, chunks: Iterable[bytes | memoryview]) -> None:
        for chunk in chunks:
            self._hasher.update(chunk)
            if self._file is None and len(self._memory) + len(chunk) <= IN_MEMORY:
                self._memory += chunk
            else:
                self._to_file(chunk)

    def _to_file(self, chunk: bytes | memoryview) -> None:
        with os_errors("keeping bytes on their way to the blob store", tempfile.gettempdir()):
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
                self._file.write(self._memory)
                self._memory = bytearray()
            self._file.write(chunk)

    @property
    def digest(self) -> str:
        return self._hasher.digest

    @property
    def view(self) -> memoryview:
        """All that was filled in; the file is mapped, not read."""
        if self._file is None:
            return memoryview(self._memory)
        with os_errors("keeping bytes on their way to the blob store", tempfile.gettempdir()):
            self._file.flush()
            return memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))
