"""A Zarr store below a prefix of an object store, for zarr to read: over the requests of `remote`.

What is there is known from a listing, so that names cost no request, and a chunk that is not there
neither. Chunks are read in threads, as many at once as zarr asks for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping

from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype

from penstock.data.formats import remote


class RemoteStore(Store):
    """Read only.

    url    of the store's own prefix
    there  name of each object -> (bytes, stamp)
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, url: str, there: Mapping[str, tuple[int, str]]) -> None:
        super().__init__(read_only=True)
        self._url, self._there = url, there

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteStore) and (self._url, self._there) == (
            other._url,
            other._there,
        )

    def __str__(self) -> str:
        return remote.without_options(self._url)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if key not in self._there:
            return None
        size = self._there[key][0]
        start, end = _span(byte_range, size)
        data = await asyncio.to_thread(remote.get, self._url, key, start, end) if size else b""
        return prototype.buffer.from_bytes(bytes(data))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        asked = [self.get(key, prototype, byte_range) for key, byte_range in key_ranges]
        return list(await asyncio.gather(*asked))

    async def exists(self, key: str) -> bool:
        return key in self._there

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError("it is read only")

    async def delete(self, key: str) -> None:
        raise NotImplementedError("it is read only")

    async def list(self) -> AsyncIterator[str]:
        for name in self._there:
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for name in self._there:
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        start = f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else ""
        below = (name[len(start) :] for name in self._there if name.startswith(start))
        for name in dict.fromkeys(each.split("/", 1)[0] for each in below):
            yield name


def _span(asked: ByteRequest | None, size: int) -> tuple[int, int]:
    match asked:
        case RangeByteRequest():
            return asked.start, min(asked.end, size)
        case OffsetByteRequest():
            return asked.offset, size
        case SuffixByteRequest():
            return max(0, size - asked.suffix), size
        case _:
            return 0, size
