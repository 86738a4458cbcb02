"""Digests: `sha256:` followed by 64 hex digits, over bytes, streams and canonical JSON."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

PREFIX = "sha256:"
CHUNK = 1 << 20  # bytes read at a time
_FORM = re.compile(r"sha256:[0-9a-f]{64}")


class Hasher:
    """A streaming digest: feed it, then ask for `digest`; `size` counts bytes."""

    def __init__(self) -> None:
        self._state = hashlib.sha256()
        self.size = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self._state.update(data)
        self.size += len(data) if not isinstance(data, memoryview) else data.nbytes

    @property
    def digest(self) -> str:
        return PREFIX + self._state.hexdigest()


def digest_bytes(data: bytes | bytearray | memoryview) -> str:
    """Digest of one buffer."""
    return PREFIX + hashlib.sha256(data).hexdigest()


def digest_chunks(chunks: Iterable[bytes]) -> str:
    """Digest of the concatenation of `chunks`."""
    hasher = Hasher()
    for chunk in chunks:
        hasher.update(chunk)
    return hasher.digest


def digest_file(path: Path) -> str:
    """Digest of a file, read in pieces of 1 MiB."""
    with path.open("rb") as stream:
        return digest_chunks(read_chunks(stream))


def read_chunks(stream: BinaryIO, size: int = CHUNK) -> Iterator[bytes]:
    """The stream's bytes in pieces of at most `size`."""
    while chunk := stream.read(size):
        yield chunk


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a value: keys sorted, no spaces, UTF-8, NaN refused."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest_json(value: Any) -> str:
    """Digest of a value's canonical JSON."""
    return digest_bytes(canonical_json(value))


def is_digest(text: str) -> bool:
    """Whether `text` has the form of a digest; checked before it becomes a path."""
    return _FORM.fullmatch(text) is not None


def short(digest: str, digits: int = 8) -> str:
    """The first digits, for people.

    >>> short("sha256:" + "ab" * 32)
    'abababab'
    """
    return digest.removeprefix(PREFIX)[:digits]
