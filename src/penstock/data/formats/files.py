"""Bytes of a file, here or in an object store: opened, stamped, hashed, and held to be steady."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from penstock.base.errors import BadInput, PenstockError
from penstock.base.files import from_os_error, os_errors
from penstock.base.hashing import CHUNK, Hasher, digest_bytes
from penstock.data.formats import remote
from penstock.data.formats.port import Input

AHEAD = 256 << 10
_REMEMBERED = 1 << 16  # digests of this process; beyond, the oldest are computed again
_digests: dict[tuple[object, ...], str] = {}
_MOST_HASHED = 8 << 20  # bytes of small files that were hashed and are likely to be read next


class _Hashed(threading.local):
    """Small files whose bytes this thread has in hand: (uri, stamp) -> bytes, oldest first."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], bytes] = {}
        self._size = 0

    def keep(self, input: Input, data: bytes) -> None:
        self.take(input)
        self._files[input.uri, input.stamp] = data
        self._size += len(data)
        while self._size > _MOST_HASHED:
            self._size -= len(self._files.pop(next(iter(self._files))))

    def take(self, input: Input) -> bytes | None:
        data = self._files.pop((input.uri, input.stamp), None)
        self._size -= len(data or b"")
        return data


_hashed = _Hashed()


@dataclass(frozen=True, slots=True)
class File:
    """name relative to what was given; uri absolute; size in bytes; stamp changes with the file."""

    name: str
    uri: str
    size: int
    stamp: str

    def whole(self) -> Input:
        return Input(self.name, self.uri, self.size, self.stamp)

    def piece(self, unit: str, first: int, end: int, size: int) -> Input:
        name = f"{self.name}#{unit}={first}-{end}"
        return Input(name, self.uri, size, self.stamp, (unit, first, end))


def file_name(input: Input) -> str:
    """The name of an input's file, without its piece."""
    return input.name if input.piece is None else input.name.rpartition("#")[0]


def look(uri: str) -> tuple[int, str]:
    """(size, stamp) of a file. Raises BadInput when it is not there."""
    if remote.is_remote(uri):
        return remote.look(uri)
    try:
        found = os.stat(uri)  # noqa: PTH116 - of every small file; making a Path takes as long again
    except FileNotFoundError:
        raise _gone(uri) from None
    except OSError as error:
        raise from_os_error(error, "reading a file", uri) from error
    return found.st_size, f"{found.st_size}-{found.st_mtime_ns}"


def _gone(uri: str) -> BadInput:
    return BadInput(f"{uri} is not there any more", "List the files again.", path=uri, gone=True)


def open_bytes(uri: str, ahead: int = AHEAD, *, small: bool = False) -> BinaryIO:
    """A seekable stream of a file's bytes; the caller closes it. Raises BadInput, Unavailable.

    ahead  bytes of one request to an object store, at least; 0 for what is asked for
    small  it is read at once: no buffer
    """
    if remote.is_remote(uri):
        return remote.open_bytes(uri, ahead)
    try:
        path = Path(uri)
        return cast(BinaryIO, path.open("rb", buffering=0)) if small else path.open("rb", CHUNK)
    except FileNotFoundError:
        raise _gone(uri) from None
    except OSError as error:
        raise from_os_error(error, "reading a file", uri) from error


@contextmanager
def steady(input: Input) -> Iterator[None]:
    """Hold that the file is the one that was listed, before the block and after it.

    An error inside the block is told as the change of the file where that is the cause.
    """
    _same(input)
    try:
        yield
    except (PenstockError, OSError, ValueError):
        _same(input)
        raise
    _same(input)


def _same(input: Input) -> None:
    stamp = look(input.uri)[1]
    if stamp != input.stamp:
        raise changed(input, stamp)


def changed(input: Input, stamp: str) -> BadInput:
    """The error for a file that is not the one that was listed."""
    return BadInput(
        f"{input.uri} changed while it was read (was {input.stamp}, is {stamp})",
        "Let whoever writes it finish, then run again; what was read of it is not kept.",
        path=input.uri,
        before=input.stamp,
        after=stamp,
    )


def of_the_system(error: BaseException) -> bool:
    """Whether an error is the disk's; else it is a library's about what the file holds. A place
    that no file can have (EINVAL) comes from damage, too."""
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


@contextmanager
def opened(input: Input, ahead: int = AHEAD) -> Iterator[BinaryIO]:
    """The bytes of an input's file, which stays as it was listed."""
    with steady(input), open_bytes(input.uri, ahead) as stream:
        try:
            yield stream
        except OSError as error:
            if not of_the_system(error):
                raise
            raise from_os_error(error, "reading a file", input.uri) from error


def remembered(input: Input, what: str, compute: Callable[[], str]) -> str:
    """`compute()`, remembered in this process by the file's place and stamp and by `what`."""
    key = (input.uri, input.stamp, input.piece, what)
    if key not in _digests:
        if len(_digests) >= _REMEMBERED:
            del _digests[next(iter(_digests))]
        _digests[key] = compute()
    return _digests[key]


def digest_whole(input: Input) -> str:
    """SHA-256 of the whole file of an input, read in pieces of 1 MiB."""

    def compute() -> str:
        if input.size <= CHUNK:
            data = read_whole(input)
            _hashed.keep(input, data)
            return digest_bytes(data)
        hasher = Hasher()
        with opened(input) as stream:
            while chunk := stream.read(CHUNK):
                hasher.update(chunk)
        return hasher.digest

    return remembered(Input(input.name, input.uri, input.size, input.stamp), "whole", compute)


def digest_ranges(input: Input, ranges: list[tuple[int, int]], more: bytes) -> str:
    """SHA-256 of `more` and of the bytes first..end of the input's file, in the order given."""

    def compute() -> str:
        hasher = Hasher()
        hasher.update(more)
        with opened(input) as stream:
            for first, end in ranges:
                stream.seek(first)
                while first < end and (chunk := stream.read(min(CHUNK, end - first))):
                    hasher.update(chunk)
                    first += len(chunk)
        return hasher.digest

    return remembered(input, f"{ranges}{more!r}", compute)


def count_newlines(stream: BinaryIO, first: int, end: int) -> int:
    """How many newlines the bytes first..end hold."""
    stream.seek(first, os.SEEK_SET)
    count = 0
    while first < end and (chunk := stream.read(min(CHUNK, end - first))):
        count += chunk.count(b"\n")
        first += len(chunk)
    return count


def read_whole(input: Input) -> bytes:
    """All bytes of a small file, which is the one that was listed: one look, after reading.

    What this thread hashed a moment ago is given from memory, once.
    """
    if (data := _hashed.take(input)) is not None:
        return data
    with open_bytes(input.uri, small=True) as stream, os_errors("reading a file", input.uri):
        data = stream.read()
    _same(input)
    return data
