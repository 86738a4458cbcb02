"""A seekable stream over an object: small reads near each other cost one request.

The first request after a jump is small; while reading goes on in order, requests grow to 8 MiB
and up to four run ahead, so that a sequential reader gets what the line carries.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable
from typing import Any

from penstock.blobs.remote.client import Piece

FIRST = 256 << 10  # bytes of the first request
LARGEST = 8 << 20
AHEAD = 4  # requests
_Finish = Callable[[], Piece]


class ObjectStream(io.RawIOBase):
    """Owns pieces of at most `AHEAD` + 1 requests. For one thread, as files are.

    start  begins to read a range and returns what waits for it
    first  bytes from 0 on that are there already
    size   of the object
    """

    def __init__(self, start: Callable[[int, int], _Finish], first: memoryview, size: int) -> None:
        super().__init__()
        self._start = start
        self._size = size
        self._at = 0
        self._piece, self._piece_at = first, 0
        self._coming: deque[tuple[int, int, _Finish]] = deque()  # (start, end, wait)
        self._step = FIRST

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, target: Any) -> int:
        view = memoryview(target).cast("B")
        wanted = min(view.nbytes, self._size - self._at)
        if wanted <= 0:
            return 0
        if not self._piece_at <= self._at < self._piece_at + self._piece.nbytes:
            self._fetch(wanted)
        offset = self._at - self._piece_at
        part = self._piece[offset : offset + wanted]
        view[: part.nbytes] = part
        self._at += part.nbytes
        return part.nbytes

    def readall(self) -> bytes:
        data = bytearray(max(0, self._size - self._at))
        view, done = memoryview(data), 0
        while done < len(data):
            done += self.readinto(view[done:])
        return bytes(data)

    def close(self) -> None:
        self._coming.clear()
        self._piece = memoryview(b"")
        super().close()

    def _fetch(self, wanted: int) -> None:
        """Have the piece that holds the position."""
        after = self._piece_at + self._piece.nbytes
        while self._coming and not self._coming[0][0] <= self._at < self._coming[0][1]:
            self._coming.popleft()
        if self._coming or self._at == after:
            self._step = min(LARGEST, self._step * 4)
        else:
            self._step = FIRST
        begin = self._coming[-1][1] if self._coming else self._at
        ahead = AHEAD if self._step > FIRST else 1
        while begin < self._size and len(self._coming) < ahead:
            end = min(begin + max(self._step, 0 if self._coming else wanted), self._size)
            self._coming.append((begin, end, self._start(begin, end)))
            begin = end
        at, _, finish = self._coming.popleft()
        self._piece, self._piece_at = finish().data, at
