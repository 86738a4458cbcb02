"""An object store's requests, as plain calls: over obstore, opened anew in every process.

Keys are relative to the address's prefix. "Not there" is an answer (None or False), every other
failure is the family's error.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from penstock.blobs.remote.address import Address
from penstock.blobs.remote.counters import Counters
from penstock.blobs.remote.etag import etag_of
from penstock.blobs.remote.failures import give_up
from penstock.blobs.remote.opening import open_store
from penstock.blobs.remote.runtime import Runtime, runtime
from penstock.blobs.remote.sending import Final, Sender

T = TypeVar("T")
PAGE = 1000  # keys of one list request
PARTS = 4  # parts of one multipart upload at a time


@dataclass(frozen=True, slots=True)
class Meta:
    """modified: seconds since 1970 on the store's clock, of a resolution of one second."""

    key: str
    size: int
    modified: float
    etag: str


@dataclass(frozen=True, slots=True)
class Piece:
    """data: a buffer; size: of the whole object."""

    data: memoryview
    size: int


class _Opened:
    """The client in one process."""

    def __init__(self, address: Address) -> None:
        self.runtime: Runtime = runtime()
        self.sender = Sender(address)
        self.store = open_store(self.runtime.obstore, address, retries=0)
        self.uploads = open_store(self.runtime.obstore, address, retries=4)


class Client:
    """Safe for threads; may cross a fork."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._opened: dict[int, _Opened] = {}

    @property
    def counters(self) -> Counters:
        """Of this process; zero before the first request."""
        found = self._opened.get(os.getpid())
        return Counters() if found is None else found.sender.counters

    def _here(self) -> _Opened:
        pid = os.getpid()
        found = self._opened.get(pid)
        if found is None:
            found = self._opened.setdefault(pid, _Opened(self.address))
        return found

    # reading

    def head(self, key: str) -> Meta | None:
        here = self._here()

        async def attempt() -> Any:
            return await here.runtime.obstore.head_async(here.store, key)

        try:
            found, _ = here.runtime.run(here.sender.send("head", attempt, read=0))
        except Final as final:
            if final.failure.kind in ("denied", "other") and not final.failure.code:
                self.get(key, 0, 1)  # an answer to HEAD has no body to tell why; this one has
            self._absent(final)
            return None
        return _meta(found)

    def get(self, key: str, start: int, end: int) -> Piece | None:
        """Bytes start..end, cut at the object's end; None when it is not there.

        A start at or beyond its end gives an empty piece.
        """
        here = self._here()
        try:
            return here.runtime.run(self._get(here, key, start, end))
        except Final as final:
            self._absent(final)
            return None

    def start_get(self, key: str, start: int, end: int) -> Callable[[], Piece | None]:
        """Begin `get`; the returned call waits for it."""
        here = self._here()
        future = here.runtime.start(self._get(here, key, start, end))

        def finish() -> Piece | None:
            try:
                return future.result()
            except Final as final:
                self._absent(final)
                return None
            except BaseException:
                future.cancel()
                raise

        return finish

    async def _get(self, here: _Opened, key: str, start: int, end: int) -> Piece:
        async def attempt() -> Piece:
            options = {"range": (start, end)}
            result = await here.runtime.obstore.get_async(here.store, key, options=options)
            size = result.meta["size"]
            data = memoryview(await result.bytes_async())
            if data.nbytes != max(0, min(end, size) - start):
                raise TimeoutError  # cut short on its way
            return Piece(data, size)

        try:
            piece, _ = await here.sender.send("get", attempt, read=end - start)
        except Final as final:
            if final.failure.kind != "range":
                raise
            return Piece(memoryview(b""), start)
        here.sender.counters.bytes_read += piece.data.nbytes
        return piece

    def list(self, prefix: str = "") -> Iterator[Sequence[Meta]]:
        """Pages of all objects below a prefix; goes on where it was after a failure."""
        here = self._here()
        last: str | None = None
        stream: Any = None

        async def attempt() -> Any:
            nonlocal stream
            if stream is None:
                stream = here.runtime.obstore.list(
                    here.store, prefix or None, offset=last, chunk_size=PAGE
                )
            try:
                return await anext(stream)
            except StopAsyncIteration:
                return []
            except BaseException:
                stream = None
                raise

        while page := self._run(here, here.sender.send("list", attempt))[0]:
            last = page[-1]["path"]
            yield [_meta(each) for each in page]
            if len(page) < PAGE:
                return  # pages are full but for the last

    # writing

    def create(self, key: str, data: memoryview) -> Literal["written", "there", "doubt"]:
        """Write an object that must not be there. Raises what any request may.

        doubt  it is there, and an earlier try of this call may have put it there
        """
        here = self._here()

        async def attempt() -> Any:
            return await here.runtime.obstore.put_async(
                here.store, key, data, mode="create", use_multipart=False
            )

        try:
            here.runtime.run(here.sender.send("put", attempt, nbytes=data.nbytes))
        except Final as final:
            if final.failure.kind != "exists":
                raise self._error(final) from None
            return "doubt" if final.doubtful else "there"
        return "written"

    def overwrite(self, key: str, data: memoryview) -> None:
        here = self._here()

        async def attempt() -> Any:
            return await here.runtime.obstore.put_async(
                here.store, key, data, mode="overwrite", use_multipart=False
            )

        self._run(here, here.sender.send("put", attempt, nbytes=data.nbytes))

    def upload(self, key: str, data: memoryview, part: int) -> None:
        """Write an object in parts, over what may be there; visible when all of it is stored.

        A failure aborts the upload, so that the store keeps no parts. Parts are sent again by
        obstore, four times; they are not in the counter of retries. When the answer to the last
        request was lost, the object is compared before everything is sent again.
        """
        here = self._here()
        count = -(-data.nbytes // part)
        tries = 0

        async def attempt() -> Any:
            nonlocal tries
            tries += 1
            if tries > 1 and await self._arrived(here, key, data, part):
                return None
            here.sender.counters.sent("upload", count=count + 1)
            return await here.runtime.obstore.put_async(
                here.uploads, key, data,
                use_multipart=True, chunk_size=part, max_concurrency=PARTS,
            )  # fmt: skip

        self._run(here, here.sender.send("upload", attempt, nbytes=data.nbytes))

    async def _arrived(self, here: _Opened, key: str, data: memoryview, part: int) -> bool:
        here.sender.counters.sent("head")
        try:
            found = _meta(await here.runtime.obstore.head_async(here.store, key))
        except FileNotFoundError:
            return False
        if found.size != data.nbytes or found.etag != etag_of(data, part):
            return False
        here.sender.counters.doubts += 1
        return True

    def copy(self, key: str, to: str) -> bool:
        """Copy inside the store; False when there is nothing to copy."""
        here = self._here()

        async def attempt() -> Any:
            return await here.runtime.obstore.copy_async(here.store, key, to)

        return self._done(here, "copy", attempt)

    def delete(self, key: str) -> None:
        """No error when it is not there."""
        here = self._here()

        async def attempt() -> Any:
            return await here.runtime.obstore.delete_async(here.store, key)

        self._done(here, "delete", attempt)

    # errors

    def _done(self, here: _Opened, kind: str, attempt: Callable[[], Awaitable[Any]]) -> bool:
        try:
            here.runtime.run(here.sender.send(kind, attempt))
        except Final as final:
            self._absent(final)
            return False
        return True

    def _run(self, here: _Opened, work: Coroutine[Any, Any, T]) -> T:
        try:
            return here.runtime.run(work)
        except Final as final:
            raise self._error(final) from None

    def _absent(self, final: Final) -> None:
        if final.failure.kind != "missing":
            raise self._error(final) from None

    def _error(self, final: Final) -> Exception:
        return give_up(final.failure, self.address, final.tries, final.seconds)


def _meta(found: Any) -> Meta:
    return Meta(
        found["path"],
        found["size"],
        found["last_modified"].timestamp(),
        (found["e_tag"] or "").strip('"'),
    )
