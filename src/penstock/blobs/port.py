"""The port of the blob store. One contract suite runs on every engine.

Law 1: bytes are written, flushed and hashed under a content address before anybody can see them.
An engine never shows half of a blob: `put` either makes the whole blob visible or nothing. A put
whose answer is lost (a time-out, a broken connection) may have happened; putting the same bytes
again is always safe and is how a caller resolves the doubt.

Removal has two steps, so that a writer who found a blob "already there" and did not write it
again cannot lose it: `condemn` takes the blob out of sight of `put` and `exists` (a later put
writes it anew), while `get` still finds it; `purge` removes it for good, `restore` brings it back.
Whoever collects garbage purges only what no row refers to and no live pin, older than the
condemnation, may still be about to refer to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True, slots=True)
class Stat:
    """size in bytes; modified: seconds since 1970 on the store's clock."""

    digest: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Begun:
    """A put whose second half is still to come; call one of the two, once, in any thread.

    size    bytes
    held    of them in memory until then
    finish  makes the blob durable and visible; raises what `put` raises
    drop    lets go of what was begun; nothing is visible then
    """

    digest: str
    size: int
    held: int
    finish: Callable[[], None]
    drop: Callable[[], None]


class Blobs(Protocol):
    """Content-addressed storage. Safe for many threads and processes at once."""

    @property
    def url(self) -> str:
        """Where it is, such that `open_blobs(url)` opens the same store in another process."""
        ...

    def put(self, data: bytes | memoryview | Iterable[bytes], *, mend: bool = False) -> str:
        """Store bytes (streamed when an iterable) and return their digest. Durable on return.

        mend  read what lies under the address already, and write it anew where it is damaged;
              otherwise its size is all that is looked at
        Raises DiskFull, ReadOnly, Unavailable; nothing is visible then.
        """
        ...

    def begin(self, data: bytes | memoryview | Iterable[bytes], *, mend: bool = False) -> Begun:
        """The first half of `put`: the bytes are taken and hashed, and no more. The data must not
        change before the second half.
        """
        ...

    def put_file(self, path: Path) -> str:
        """Store a file's bytes and return their digest; the file itself stays."""
        ...

    def get(self, digest: str) -> bytes:
        """The whole blob, verified. Raises NotFound, Damaged."""
        ...

    def read(self, digest: str, start: int = 0, length: int | None = None) -> bytes:
        """A range, not verified against the digest (callers hold finer hashes). Raises NotFound.

        A range that reaches past the end is cut there.
        """
        ...

    def open(self, digest: str) -> AbstractContextManager[BinaryIO]:
        """A seekable stream over the blob, not verified. Raises NotFound."""
        ...

    def path(self, digest: str) -> Path | None:
        """A local file to memory-map. Raises NotFound.

        None, without a look, where the engine has no files.
        """
        ...

    def stat(self, digest: str) -> Stat | None:
        """Size and time, or None when it is not there (or condemned)."""
        ...

    def exists(self, digest: str) -> bool: ...

    def verify(self, digest: str) -> None:
        """Read the whole blob and compare. Raises NotFound, Damaged."""
        ...

    def list(self) -> Iterator[Stat]:
        """Every visible blob, in no order; blobs put meanwhile may or may not appear."""
        ...

    def condemn(self, digest: str) -> None:
        """First step of removal. No error when it is already condemned or gone."""
        ...

    def condemned(self) -> Iterator[Stat]:
        """Blobs between the two steps; `modified` is when they were condemned."""
        ...

    def restore(self, digest: str) -> None:
        """Undo `condemn`. A copy that was put meanwhile stays; the condemned one goes."""
        ...

    def purge(self, digest: str) -> None:
        """Second step: remove a condemned blob. No error when it is not condemned."""
        ...
