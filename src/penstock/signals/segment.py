"""The segment: one preallocated file of framed records, written by memory copies alone.

    header   256 bytes: magic, closed flag, rank, generation, time made, run, writer (see HEADER)
    records  crc32 u32 | payload bytes u16 | kind u16 | payload, one after the other; then zeros

A record counts when its crc holds, so a reader stops cleanly where the writer is, or died.
What was copied survives SIGKILL of the writer (the pages are the kernel's), not a power cut:
nothing is ever synced here. All numbers are little-endian.

    NAME    id u32 | UTF-8                              ids count from 0 in each segment
    SCALAR  name u32 | step i64 | value f64 | at f64     at: seconds since 1970
    SPAN    name u32 | step i64 | start f64 | end f64    seconds since 1970
    TEXT    name u32 | step i64 | at f64 | UTF-8
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from penstock.base.errors import Damaged
from penstock.base.process import Identity

SIZE = 1 << 20  # bytes of a segment: about 29,000 scalars
HEADER = struct.Struct("<8s I i q d 64s 160s")  # magic closed rank generation made run writer
HEADER_BYTES = HEADER.size
CLOSED_AT = 8  # offset of the closed flag
MAGIC = b"PSSEG001"
SUFFIX = ".seg"

FRAME = struct.Struct("<IHH")  # crc32 of all that follows it, bytes of the payload, kind
NAME, SCALAR, SPAN, TEXT = 1, 2, 3, 4
NUMBERS = struct.Struct("<Iqdd")  # payload of SCALAR and SPAN
TEXT_HEAD = struct.Struct("<Iqd")
NAME_HEAD = struct.Struct("<I")
NAME_BYTES = 512
TEXT_BYTES = 32_000

_FORM = re.compile(r"(\d+)-(\d+)-(\d+)\.seg")


@dataclass(frozen=True, slots=True)
class Head:
    """What the header says. `closed`: the writer is done with this segment."""

    run_id: str
    rank: int
    generation: int
    made_at: float
    writer: str
    closed: bool

    def is_final(self) -> bool:
        """Whether nothing more will come: closed, or its writer is known to be dead."""
        if self.closed:
            return True
        try:
            return Identity.parse(self.writer).is_dead() is True
        except ValueError:
            return False  # not an identity: nobody can know


@dataclass(frozen=True, slots=True)
class Record:
    """One scalar (value, at), span (start = at, end = value) or text (text, at)."""

    kind: int
    step: int
    name: str
    value: float
    at: float
    text: str = ""


@dataclass(slots=True)
class Cursor:
    """How far a segment has been read; reading goes on from here."""

    offset: int = HEADER_BYTES
    names: dict[int, str] = field(default_factory=dict)


def file_name(generation: int, rank: int, index: int) -> str:
    """Sorts by generation, rank, order of writing."""
    return f"{generation:06d}-{rank:05d}-{index:05d}{SUFFIX}"


def list_segments(folder: Path) -> list[Path]:
    """The segments of a folder in the order of their names; [] when there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _FORM.fullmatch(path.name))


def rank_of(path: Path) -> int:
    """Whose segment this is, by its name as `list_segments` gives it."""
    return int(path.name.split("-")[1])


def pack_head(head: Head) -> bytes:
    return HEADER.pack(
        MAGIC,
        head.closed,
        head.rank,
        head.generation,
        head.made_at,
        head.run_id.encode()[:64],
        head.writer.encode()[:160],
    )


def read_head(data: bytes, where: str) -> Head | None:
    """The header of a segment; None when its writer died before it was written. Raises Damaged."""
    if len(data) < HEADER_BYTES or not any(data[:8]):
        return None
    magic, closed, rank, generation, made_at, run_id, writer = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise Damaged(
            f"{where} is not a segment of signals",
            "Move it out of the folder; nothing else was touched.",
            path=where,
        )
    run, identity = (raw.rstrip(b"\0").decode(errors="replace") for raw in (run_id, writer))
    return Head(run, rank, generation, made_at, identity, closed != 0)


def frame(kind: int, payload: bytes) -> bytes:
    """A record as it stands in the file. The crc also covers kind and length."""
    size = len(payload)
    return FRAME.pack(crc32(payload, kind << 16 | size), size, kind) + payload


def read_records(data: bytes, cursor: Cursor) -> Iterator[Record]:
    """Whole records from the cursor on; moves it. Kinds that are not known are passed over."""
    while (found := _next_frame(data, cursor.offset)) is not None:
        kind, payload = found
        cursor.offset += FRAME.size + len(payload)
        if kind == NAME:
            (number,) = NAME_HEAD.unpack_from(payload)
            cursor.names[number] = payload[NAME_HEAD.size :].decode(errors="replace")
        elif kind == SCALAR:
            number, step, value, at = NUMBERS.unpack(payload)
            yield Record(kind, step, cursor.names[number], value, at)
        elif kind == SPAN:
            number, step, start, end = NUMBERS.unpack(payload)
            yield Record(kind, step, cursor.names[number], end, start)
        elif kind == TEXT:
            number, step, at = TEXT_HEAD.unpack_from(payload)
            text = payload[TEXT_HEAD.size :].decode(errors="replace")
            yield Record(kind, step, cursor.names[number], 0.0, at, text)


def written(data: bytes, at: int) -> int:
    """Where the whole records of a segment end, going on from where some of them did; 0 while its
    header is not there."""
    if len(data) < HEADER_BYTES or not any(data[:8]):
        return 0
    at = max(at, HEADER_BYTES)
    while (found := _next_frame(data, at)) is not None:
        at += FRAME.size + len(found[1])
    return at


def mark_closed(path: Path) -> None:
    """Of a copy, whose writer nobody here can look at: nothing more will come."""
    with path.open("r+b") as stream:
        stream.seek(CLOSED_AT)
        stream.write(b"\1")


def _next_frame(data: bytes, offset: int) -> tuple[int, bytes] | None:
    begin = offset + FRAME.size
    if begin > len(data):
        return None
    crc, size, kind = FRAME.unpack_from(data, offset)
    payload = data[begin : begin + size]
    if kind == 0 or len(payload) < size or crc32(payload, kind << 16 | size) != crc:
        return None
    return kind, payload
