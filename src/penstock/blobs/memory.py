"""Blobs in the memory of one process, for tests and trials; the contract is the same."""

from __future__ import annotations

import io
import itertools
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from weakref import WeakValueDictionary

from penstock.base.errors import NotFound
from penstock.base.files import os_errors
from penstock.base.hashing import digest_bytes
from penstock.blobs.check import begun_in_memory, damaged, hexdigits, missing, span
from penstock.blobs.port import Begun, Stat

_numbers = itertools.count(1)
_open: WeakValueDictionary[str, MemoryBlobs] = WeakValueDictionary()


def open_memory(name: str) -> MemoryBlobs:
    """A new store for an empty name; else the one of this process that has the name."""
    if not name:
        store = MemoryBlobs(str(next(_numbers)))
        _open[store.name] = store
        return store
    found = _open.get(name)
    if found is None:
        raise NotFound(
            f"memory://{name} is not a store of this process",
            "A store in memory ends with its process; use file:///PATH to share one.",
            url=f"memory://{name}",
        )
    return found


class MemoryBlobs:
    """Owns two dictionaries, digest -> (bytes, time), under one lock; ends with its owner."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = threading.Lock()
        self._visible: dict[str, tuple[bytes, float]] = {}
        self._condemned: dict[str, tuple[bytes, float]] = {}

    @property
    def url(self) -> str:
        return f"memory://{self.name}"

    def put(self, data: bytes | memoryview | Iterable[bytes], *, mend: bool = False) -> str:
        whole = bytes(data) if _is_buffer(data) else b"".join(data)  # type: ignore[arg-type]
        digest = digest_bytes(whole)
        with self._lock:
            found = self._visible.get(digest)
            if found is None or len(found[0]) != len(whole) or (mend and found[0] != whole):
                self._visible[digest] = (whole, time.time())
        return digest

    def begin(self, data: bytes | memoryview | Iterable[bytes], *, mend: bool = False) -> Begun:
        return begun_in_memory(self, data, mend)

    def put_file(self, path: Path) -> str:
        with os_errors("reading a file", path):
            return self.put(path.read_bytes())

    def get(self, digest: str) -> bytes:
        data = self._find(digest)
        if (found := digest_bytes(data)) != digest:
            raise damaged(digest, self.url, found, len(data))
        return data

    def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes:
        data = self._find(digest)
        first, end = span(len(data), start, length)
        return data[first:end]

    @contextmanager
    def open(self, digest: str) -> Iterator[BinaryIO]:
        with io.BytesIO(self._find(digest)) as stream:
            yield stream

    def path(self, digest: str) -> Path | None:
        hexdigits(digest)
        return None

    def stat(self, digest: str) -> Stat | None:
        hexdigits(digest)
        with self._lock:
            found = self._visible.get(digest)
        return None if found is None else Stat(digest, len(found[0]), found[1])

    def exists(self, digest: str) -> bool:
        return self.stat(digest) is not None

    def verify(self, digest: str) -> None:
        self.get(digest)

    def list(self) -> Iterator[Stat]:
        return self._stats(self._visible)

    def condemn(self, digest: str) -> None:
        hexdigits(digest)
        with self._lock:
            if (found := self._visible.pop(digest, None)) is not None:
                self._condemned[digest] = (found[0], time.time())

    def condemned(self) -> Iterator[Stat]:
        return self._stats(self._condemned)

    def restore(self, digest: str) -> None:
        hexdigits(digest)
        with self._lock:
            if (found := self._condemned.pop(digest, None)) is not None:
                self._visible.setdefault(digest, (found[0], time.time()))

    def purge(self, digest: str) -> None:
        hexdigits(digest)
        with self._lock:
            self._condemned.pop(digest, None)

    def _find(self, digest: str) -> bytes:
        hexdigits(digest)
        with self._lock:
            found = self._visible.get(digest) or self._condemned.get(digest)
        if found is None:
            raise missing(digest, self.url)
        return found[0]

    def _stats(self, side: dict[str, tuple[bytes, float]]) -> Iterator[Stat]:
        with self._lock:
            found = [Stat(digest, len(data), at) for digest, (data, at) in side.items()]
        return iter(found)


def _is_buffer(data: object) -> bool:
    return isinstance(data, bytes | bytearray | memoryview)
