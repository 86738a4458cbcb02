"""What every engine does the same way: checks of digests, blobs and ranges, and begun puts."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.base.errors import BadInput, Damaged, NotFound
from penstock.base.hashing import PREFIX, Hasher, is_digest, short
from penstock.blobs.port import Begun, Blobs


def hexdigits(digest: str) -> str:
    """The 64 hex digits of a digest, checked before they become part of a path."""
    if not is_digest(digest):
        raise BadInput(
            f"{digest!r} is not a digest",
            "Give sha256: followed by 64 lower-case hex digits.",
            digest=str(digest),
        )
    return digest[len(PREFIX) :]


def missing(digest: str, url: str) -> NotFound:
    """The error for a blob that is nowhere in the store."""
    return NotFound(
        f"blob {short(digest)}… is not in {url}",
        "It was removed, or written to another store; check the setting `blobs`.",
        digest=digest,
        url=url,
    )


def damaged(digest: str, url: str, found: str, size: int) -> Damaged:
    """The error for a blob whose bytes are not what its address says."""
    return Damaged(
        f"blob {digest} in {url} is damaged: its {size} bytes hash to {short(found)}…",
        "Check the disk; write the same data again, or restore the blob from a copy.",
        digest=digest,
        found=found,
        bytes=size,
        url=url,
    )


def span(size: int, start: int, length: int | None) -> tuple[int, int]:
    """(first, end) of a range inside `size` bytes; what reaches past the end is cut there."""
    if start < 0 or (length is not None and length < 0):
        raise BadInput(
            f"a range cannot start at {start} with length {length}",
            "Give a start and a length that are 0 or more.",
            start=start,
            length=length,
        )
    first = min(start, size)
    return first, size if length is None else min(first + length, size)


def begun_in_memory(blobs: Blobs, data: bytes | memoryview | Iterable[bytes], mend: bool) -> Begun:
    """`begin` of an engine whose puts have no halves: hashed now, put whole afterwards."""
    pieces = [data] if isinstance(data, bytes | bytearray | memoryview) else list(data)
    hasher = Hasher()
    for piece in pieces:
        hasher.update(piece)

    def finish() -> None:
        blobs.put(pieces, mend=mend)  # type: ignore[arg-type]  # views are as good as bytes

    return Begun(hasher.digest, hasher.size, hasher.size, finish, lambda: None)
