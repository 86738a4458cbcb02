"""A blob store that counts what is read of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from penstock.blobs import Blobs


class Counting:
    """As the store behind it. whole: blobs read whole; opened: streams; bytes: of both."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self.whole = self.opened = self.bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def get(self, digest: str) -> bytes:
        found = self._blobs.get(digest)
        self.whole += 1
        self.bytes += len(found)
        return found

    @contextmanager
    def open(self, digest: str) -> Iterator[Any]:
        self.opened += 1
        with self._blobs.open(digest) as stream:
            yield _Stream(stream, self)


class _Stream:
    def __init__(self, stream: Any, counts: Counting) -> None:
        self._stream, self._counts = stream, counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, size: int = -1) -> bytes:
        found: bytes = self._stream.read(size)
        self._counts.bytes += len(found)
        return found

    def readinto(self, buffer: Any) -> int:
        count: int = self._stream.readinto(buffer)
        self._counts.bytes += count
        return count
