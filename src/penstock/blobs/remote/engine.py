"""Blobs in an object store, under keys that a folder of the local engine would have as paths.

ab/<62 hex>                    a visible blob
condemned/ab/<62 hex>          one between `condemn` and `purge`
condemned/ab/<62 hex>.since    an empty object; its time is when the blob was condemned

Because the layout is the folder's, a plain copy of one (`aws s3 sync`) is a store.

Writing. An object appears whole or not at all, so a blob is written straight to its place: small
ones with `If-None-Match: *`, large ones in parts, after a look. What is there already under a
digest has its content; a size that differs is mended by writing over it. Writing over a blob that
is whole changes nothing, so a store that ignores the condition, and two writers at once, do no
harm. A write whose answer was lost is resolved by comparing content: the ETag where it is a hash
of it, else the bytes.

Removing, without rename. `condemn`: 1 copy to condemned/, 2 delete an old .since, 3 delete the
visible object, 4 write .since. At every moment the blob lies in one of the two places, so readers,
who look into visible, condemned, visible, find it. A collector must know that a writer which found
the blob visible pinned before `modified` of `condemned()`; that is the time of step 4, later than
step 3, the last moment at which anybody could find it. Died after 1 or 2: still visible; the next
`condemn` repeats all, and a purge of the copy takes nothing that is needed. Died after 3: the copy
has no .since; `condemned` writes one, and the waiting begins then. A `put` at any moment writes or
finds the visible object only: found before step 3, its writer's pin is older than .since, and the
collector restores; later it writes anew, and `purge` (copy, then .since) never touches that.
`restore`: copy back if nothing is visible, then delete .since and the copy; died in between, both
are there, and `restore` again finishes.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from penstock.base.errors import PenstockError, Unavailable
from penstock.base.files import os_errors
from penstock.base.hashing import PREFIX, Hasher, digest_bytes, is_digest, read_chunks
from penstock.blobs.check import begun_in_memory, damaged, hexdigits, missing, span
from penstock.blobs.port import Begun, Stat
from penstock.blobs.remote import address
from penstock.blobs.remote.client import Client, Meta, Piece
from penstock.blobs.remote.counters import Counters
from penstock.blobs.remote.etag import etag_of
from penstock.blobs.remote.spool import Spool
from penstock.blobs.remote.stream import FIRST, ObjectStream

T = TypeVar("T")
PIECE = 8 << 20  # bytes of one ranged read
WINDOW = 8  # ranged reads of one blob at a time
LOOK_FIRST = 256 << 10  # bytes from which a look is cheaper than sending in vain
SINGLE = 16 << 20  # bytes up to which a blob is written in one request
_MOST_PARTS = 9000  # S3 allows 10,000
_SINCE = ".since"
_TOO_LARGE = ("InvalidRequest", "EntityTooLarge")  # what S3 answers to a copy


class RemoteBlobs:
    """An engine over an object store; safe for many threads and processes, may cross a fork.

    Holds connections and a thread per process (`runtime.py`), none before the first request.
    Raises, beside what the port says: StoreUnreachable, StoreThrottled, NoCredentials,
    AccessDenied, NoSuchBucket, ClockSkew, Unavailable.
    """

    def __init__(self, where: address.Address) -> None:
        self._client = Client(where)
        self._url = where.url

    @property
    def url(self) -> str:
        return self._url

    @property
    def counters(self) -> Counters:
        """Of this process."""
        return self._client.counters

    # writing

    def put(self, data: bytes | memoryview | Iterable[bytes], *, mend: bool = False) -> str:
        if isinstance(data, bytes | bytearray | memoryview):
            view = memoryview(data).cast("B") if memoryview(data).nbytes else memoryview(b"")
            digest = digest_bytes(view)
            self._store(digest, view, mend)
            return digest
        with Spool() as spool:
            spool.fill(data)
            self._store(spool.digest, spool.view, mend)
            return spool.digest

    def begin(self, data: bytes | memoryview | Iterable[bytes], *, mend: bool = False) -> Begun:
        return begun_in_memory(self, data, mend)

    def put_file(self, path: Path) -> str:
        with os_errors("reading a file", path):
            stream = path.open("rb")
        with stream:
            return self.put(read_chunks(stream))

    def _store(self, digest: str, data: memoryview, mend: bool) -> None:
        key = _visible(digest)
        found = self._client.head(key) if mend or data.nbytes > LOOK_FIRST else None
        if found is None and data.nbytes <= SINGLE:
            answer = self._client.create(key, data)
            while answer != "written":
                found = self._client.head(key)
                if found is not None:
                    break
                answer = self._client.create(key, data)  # condemned in between
            if found is None:
                return
            if answer == "doubt":
                self._client.counters.doubts += 1
                mend = found.etag != etag_of(data)
        if found is None or found.size != data.nbytes or (mend and not self._is_whole(digest)):
            self._write(key, data)

    def _write(self, key: str, data: memoryview) -> None:
        if data.nbytes <= SINGLE:
            self._client.overwrite(key, data)
        else:
            self._client.upload(key, data, max(SINGLE, -(-data.nbytes // _MOST_PARTS)))

    def _is_whole(self, digest: str) -> bool:
        return self._hash(digest, _visible(digest)) in (digest, None)

    # reading

    def get(self, digest: str) -> bytes:
        data = self._range(digest, 0, None)
        if (found := digest_bytes(data)) != digest:  # on its way, or there? one more look tells
            self._client.counters.rereads += 1
            data = self._range(digest, 0, None)
            if (found := digest_bytes(data)) != digest:
                raise damaged(digest, self.url, found, len(data))
        return data

    def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes:
        span(0, start, length)
        if length == 0:
            self._find(digest, self._client.head)
            return b""
        return self._range(digest, start, None if length is None else start + length)

    def _range(self, digest: str, start: int, end: int | None) -> bytes:
        first_end = start + PIECE if end is None else min(end, start + PIECE)
        key, first = self._find(digest, lambda key: self._client.get(key, start, first_end))
        stop = first.size if end is None else min(end, first.size)
        if start + first.data.nbytes >= stop:
            return bytes(first.data)
        rest = self._pieces(digest, key, start + first.data.nbytes, stop)
        return b"".join((first.data, *rest))

    def _pieces(self, digest: str, key: str, start: int, end: int) -> Iterator[memoryview]:
        """start..end in order, several reads at a time."""
        coming: deque[Callable[[], Piece]] = deque()
        for at in range(start, end, PIECE):
            coming.append(self._begin(digest, key, at, min(at + PIECE, end)))
            if len(coming) >= WINDOW:
                yield coming.popleft()().data
        while coming:
            yield coming.popleft()().data

    def _begin(self, digest: str, key: str, start: int, end: int) -> Callable[[], Piece]:
        """Begin a ranged read of a blob that was at `key` a moment ago."""
        finish = self._client.start_get(key, start, end)

        def wait() -> Piece:
            piece = finish()
            if piece is not None:
                return piece
            # condemned or restored since
            return self._find(digest, lambda key: self._client.get(key, start, end))[1]

        return wait

    @contextmanager
    def open(self, digest: str) -> Iterator[BinaryIO]:
        key, first = self._find(digest, lambda key: self._client.get(key, 0, FIRST))
        raw = ObjectStream(
            lambda start, end: self._begin(digest, key, start, end), first.data, first.size
        )
        with io.BufferedReader(cast(Any, raw), 64 << 10) as stream:
            yield cast(BinaryIO, stream)

    def path(self, digest: str) -> Path | None:
        hexdigits(digest)
        return None

    def stat(self, digest: str) -> Stat | None:
        found = self._client.head(_visible(digest))
        return None if found is None else Stat(digest, found.size, found.modified)

    def exists(self, digest: str) -> bool:
        return self.stat(digest) is not None

    def verify(self, digest: str) -> None:
        key, first = self._find(digest, lambda key: self._client.get(key, 0, 1))
        found = self._hash(digest, key)
        if found != digest:
            raise damaged(digest, self.url, found or "?", first.size)

    def _hash(self, digest: str, key: str) -> str | None:
        """The digest of what lies at a key, in bounded memory; None when nothing does."""
        first = self._client.get(key, 0, PIECE)
        if first is None:
            return None
        hasher = Hasher()
        hasher.update(first.data)
        for piece in self._pieces(digest, key, first.data.nbytes, first.size):
            hasher.update(piece)
        return hasher.digest

    def list(self) -> Iterator[Stat]:
        for page in self._client.list():
            for found in page:
                digest = PREFIX + found.key.replace("/", "", 1)
                if is_digest(digest) and found.key == _visible(digest):
                    yield Stat(digest, found.size, found.modified)

    # removing

    def condemn(self, digest: str) -> None:
        visible, side = _visible(digest), _side(digest)
        if self._copy(digest, visible, side):
            self._client.delete(side + _SINCE)
            self._client.delete(visible)
            self._client.overwrite(side + _SINCE, memoryview(b""))

    def condemned(self) -> Iterator[Stat]:
        """As the port says; finishes what a dead collector began (a .since that is not there)."""
        halves: dict[str, tuple[Meta, bool]] = {}  # of pairs whose other half is yet to come
        for page in self._client.list("condemned"):
            for found in page:
                name = found.key.removesuffix(_SINCE)
                digest = PREFIX + name.removeprefix("condemned/").replace("/", "", 1)
                if not is_digest(digest):
                    continue
                is_since = found.key != name
                other = halves.pop(digest, None)
                if other is None:
                    halves[digest] = (found, is_since)
                else:
                    since, copy = (found, other[0]) if is_since else (other[0], found)
                    yield Stat(digest, copy.size, since.modified)
        for digest, (found, is_since) in halves.items():
            if is_since:  # a purge died between its two deletions
                with suppress(PenstockError):
                    self._client.delete(found.key)
            else:
                self._begin_waiting(digest)
                yield Stat(digest, found.size, time.time())

    def _begin_waiting(self, digest: str) -> None:
        with suppress(PenstockError):  # a reader may not write; the collector will
            if self._client.head(_visible(digest)) is None:
                self._client.create(_side(digest) + _SINCE, memoryview(b""))

    def restore(self, digest: str) -> None:
        visible, side = _visible(digest), _side(digest)
        if self._client.head(visible) is None and not self._copy(digest, side, visible):
            return
        self._client.delete(side + _SINCE)
        self._client.delete(side)

    def purge(self, digest: str) -> None:
        side = _side(digest)
        self._client.delete(side)
        self._client.delete(side + _SINCE)

    def _copy(self, digest: str, key: str, to: str) -> bool:
        """Inside the store; through this machine what it finds too large (S3: above 5 GB)."""
        try:
            return self._client.copy(key, to)
        except Unavailable as error:
            if error.facts.get("store_code") not in _TOO_LARGE:
                raise
        first = self._client.get(key, 0, PIECE)
        if first is None:
            return False
        with Spool() as spool:
            spool.fill([first.data])
            spool.fill(self._pieces(digest, key, first.data.nbytes, first.size))
            self._write(to, spool.view)
        return True

    # places

    def _find(self, digest: str, ask: Callable[[str], T | None]) -> tuple[str, T]:
        """The place of a blob and what was asked of it: it may move between the two meanwhile."""
        for key in (_visible(digest), _side(digest), _visible(digest)):
            if (found := ask(key)) is not None:
                return key, found
        raise missing(digest, self.url)


def _visible(digest: str) -> str:
    name = hexdigits(digest)
    return f"{name[:2]}/{name[2:]}"


def _side(digest: str) -> str:
    return f"condemned/{_visible(digest)}"
