"""Segments into the blob store, where they outlive the node."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from penstock.base.hashing import is_digest
from penstock.base.ids import new_id
from penstock.blobs.port import Blobs
from penstock.signals.reader import Piece, read_segment, to_table
from penstock.signals.segment import HEADER_BYTES, SIZE, TEXT_BYTES, list_segments, read_head

_MARK = ".sealed"
_LAST = (
    TEXT_BYTES + 4096
)  # bytes that stay behind the last one that is not zero: a record may end so


def seal(folder: Path, blobs: Blobs, only_closed: bool = True) -> list[str]:
    """Store each segment as one Arrow IPC blob; returns their digests in the segments' order.

    only_closed  leave out segments that may still grow: not closed, and the writer not known to be
                 dead. Without it an open segment is stored as far as it goes; sealed again later,
                 it gives another digest, and `read_scalars` takes the longer of the two.

    Idempotent: the same segment gives the same digest; one that is final is converted once, which
    a small file beside it remembers. Segments without records give none. One caller at a time
    (the run's controller). The segments stay. Raises DiskFull, ReadOnly, Unavailable of the store.
    """
    digests: list[str] = []
    for path in list_segments(folder):
        known = _remembered(path)
        if known is not None and blobs.exists(known):
            digests.append(known)
            continue
        piece = read_segment(path)
        if piece is None:
            continue
        final = piece.head.is_final()
        if final and not piece.head.closed:
            piece = read_segment(path) or piece  # its writer may have gone on until it died
        if (final or not only_closed) and piece.records:
            digests.append(blobs.put(_to_ipc(piece)))
            if final:
                _remember(path, digests[-1])
    return digests


def trim(folder: Path) -> int:
    """Give back what dead writers preallocated and never filled; the bytes that were.

    A writer that closes its segment cuts it by itself. Nothing is parsed, so that a gang that waits
    for its successor need not wait for this. What cannot be cut stays.
    """
    freed = 0
    for path in list_segments(folder):
        with contextlib.suppress(OSError):
            if (size := path.stat().st_size) < SIZE:
                continue
            data = path.read_bytes()
            head = read_head(data[:HEADER_BYTES], str(path))
            used = len(data.rstrip(b"\0")) + _LAST
            if head is not None and not head.closed and head.is_final() and used < size:
                os.truncate(path, used)
                freed += size - used
    return freed


def _to_ipc(piece: Piece) -> memoryview:
    import pyarrow as pa

    table = to_table(piece)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def _remembered(path: Path) -> str | None:
    try:
        text = path.with_suffix(_MARK).read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if is_digest(text) else None


def _remember(path: Path, digest: str) -> None:
    """Only to save work: where it cannot be written, the segment is converted again next time."""
    making = path.with_name(f".{new_id()}{_MARK}")
    with contextlib.suppress(OSError):
        try:
            making.write_text(digest)
            making.replace(path.with_suffix(_MARK))
        finally:
            making.unlink(missing_ok=True)
