"""Files of lines: cut into chunks of whole lines, decompressed, and bad lines told from good ones.

A piece is a range of bytes; it owns the lines that start in it. Its bounds are multiples of the
piece's size, so that appending to a file changes no earlier piece.
"""

from __future__ import annotations

import gzip
import zlib
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any, BinaryIO

import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.hashing import Hasher
from penstock.data.formats.base import FileSource, blocks
from penstock.data.formats.files import (
    File,
    count_newlines,
    digest_whole,
    file_name,
    of_the_system,
    open_bytes,
    opened,
    remembered,
)
from penstock.data.formats.port import BadRecord, Block, Input

CHUNK = 4 << 20  # bytes parsed at a time: most formats grow when they become Arrow
LONGEST = 256 << 20  # of one line; a longer one is no line
SAMPLE = 1 << 20  # bytes of a file from which types are inferred, at most
_SAMPLED = 64  # files whose beginnings are looked at
_RAW_SHOWN = 1 << 16  # bytes of a bad line that are kept


class LineSource(FileSource):
    """A source whose records are lines; subclasses say how a chunk of lines becomes a table.

    quote  a quotation mark within which newlines end no record; such files are one piece
    """

    quote: bytes | None = None

    @abstractmethod
    def parse(self, data: bytes, input: Input) -> pa.Table:
        """Whole lines as a table of `schema`. Raises ValueError (Arrow's errors are)."""

    def preamble(self, input: Input) -> bytes:
        """The file's first bytes, which are no records (a header line)."""
        return b""

    def pieces(self, file: File) -> Iterator[Input]:
        step = self.piece_bytes
        if file.size <= step or self.quote or is_compressed(file.name):
            yield file.whole()
            return
        for first in range(0, file.size, step):
            end = min(first + step, file.size)
            yield file.piece("bytes", first, end, end - first)

    def digest(self, input: Input) -> str:
        if input.piece is None:
            return digest_whole(input)

        def compute() -> str:
            hasher = Hasher()
            hasher.update(self.preamble(input))
            for _, data in self.chunks(input):
                hasher.update(data)
            return hasher.digest

        return remembered(input, "lines", compute)

    def chunks(self, input: Input, size: int = 0) -> Generator[tuple[int, bytes]]:
        """(offset, whole lines) of the input, about 4 MiB (or `size`) at a time, without the
        preamble."""
        _, first, end = input.piece or ("bytes", 0, None)
        start = max(first, len(self.preamble(input)))
        with opened(input) as stream:
            reader = Reader(stream, file_name(input))
            if start > first or first == 0:
                reader.skip(start)
                yield from whole_lines(reader, start, end, self.quote, size=size)
            else:
                reader.skip(first - 1)
                yield from whole_lines(reader, first - 1, end, None, after_newline=True)

    def read(self, input: Input) -> Iterator[Block | BadRecord]:
        lines = Places(input)
        for offset, data in self.chunks(input):
            try:
                table = self.parse(data, input)
            except ValueError:
                yield from self._apart(data, offset, input, lines)
                continue
            yield from blocks(table, lines.of_rows(data, offset, self.quote))

    def _apart(
        self, data: bytes, offset: int, input: Input, lines: Places
    ) -> Iterator[Block | BadRecord]:
        """Good lines as blocks and bad ones as BadRecord, in order."""
        records = [r for r in split(data, self.quote) if r[1].strip()]
        starts = [offset + at for at, _ in records]
        only = [line for _, line in records]
        for first, _, got in isolate(only, lambda part: self.parse(part, input)):
            if isinstance(got, ValueError):
                line = only[first]
                reason = self.reason(got, line, input)
                yield BadRecord(lines.at(starts[first]), reason, line[:_RAW_SHOWN])
            else:
                yield from blocks(got, lambda row, first=first: lines.at(starts[first + row]))  # type: ignore[misc]

    def reason(self, error: ValueError, line: bytes, input: Input) -> str:
        """Why one line is bad, in a sentence without Arrow's own prefix."""
        if isinstance(error, UnicodeDecodeError):
            return f"byte {error.start} of the line is not UTF-8"
        return str(error).splitlines()[0]

    def samples(self, files: Sequence[File]) -> Iterator[tuple[Input, bytes]]:
        """The first lines of every file, or of 64 evenly chosen ones, to infer types from: 1 MiB of
        each of eight, and less of each where there are more, but not less than 128 KiB."""
        count = min(_SAMPLED, len(files))
        size = max(SAMPLE // 8, min(SAMPLE, 8 * SAMPLE // max(1, count)))
        for number in sorted({i * (len(files) - 1) // max(1, count - 1) for i in range(count)}):
            whole = files[number].whole()
            with closing(self.chunks(whole, min(CHUNK, size))) as chunks:
                data = next(chunks, (0, b""))[1]
            yield whole, data[: _last_end(data[:size], self.quote)] or data


class Places:
    """Line numbers by offset, counted only when they are asked for."""

    def __init__(self, input: Input) -> None:
        self._input = input
        self._name = file_name(input)
        self._offset, self._line = 0, 1

    def at(self, offset: int) -> str:
        """`file:line` of the line that starts at an offset of the (decompressed) file."""
        if offset < self._offset:
            self._offset, self._line = 0, 1
        with open_bytes(self._input.uri) as stream:
            reader = Reader(stream, self._name)
            if reader.plain is None:
                reader.skip(self._offset)
                self._line += reader.skip(offset - self._offset)
            else:
                self._line += count_newlines(reader.plain, self._offset, offset)
        self._offset = offset
        return f"{self._name}:{self._line}"

    def of_rows(self, data: bytes, offset: int, quote: bytes | None) -> Callable[[int], str]:
        """The place of each row of a chunk's table: its rows are the lines that are not blank."""
        starts: list[int] = []

        def place(row: int) -> str:
            if not starts:
                starts.extend(at for at, line in split(data, quote) if line.strip())
            return self.at(offset + starts[row])

        return place


class Reader:
    """Bytes of a file in order, decompressed by its extension.

    plain  the stream itself where it is not compressed, so that it can be sought
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self.offset = 0
        self.plain: BinaryIO | None = None
        self._from: Any = stream
        if name.lower().endswith(".gz"):
            self._from = gzip.GzipFile(fileobj=stream)
        elif name.lower().endswith(".zst"):
            self._from = pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd")
        else:
            self.plain = stream

    def read(self, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end."""
        data = self._decompress(size) if self.plain is None else self.plain.read(size)
        self.offset += len(data)
        return data

    def skip(self, size: int) -> int:
        """Go forward; returns how many newlines were passed over (0 where nothing was read)."""
        if self.plain is not None:
            self.plain.seek(size, 1)
            self.offset += size
            return 0
        newlines = 0
        while size > 0 and (chunk := self.read(min(CHUNK, size))):
            newlines += chunk.count(b"\n")
            size -= len(chunk)
        return newlines

    def _decompress(self, size: int) -> bytes:
        parts, left = [], size
        try:
            while left and (part := self._from.read(left)):
                parts.append(part)
                left -= len(part)
        except (EOFError, OSError, zlib.error) as error:
            if of_the_system(error):
                raise
            at = self.offset + size - left
            raise BadInput(
                f"{self._name} is damaged or cut off: {error} (near byte {self._stream.tell()} of "
                f"the file, byte {at} of its content)",
                "Write or copy it again, or leave it out.",
                path=self._name,
                offset=self._stream.tell(),
            ) from None
        return b"".join(parts)


def isolate(
    records: Sequence[bytes], parse: Callable[[bytes], pa.Table]
) -> Iterator[tuple[int, int, pa.Table | ValueError]]:
    """(first, end, table or the error of one record) for all records, in order: what does not
    parse is halved until one record is left."""
    stack = [(0, len(records))] if records else []
    while stack:
        first, end = stack.pop()
        try:
            table = parse(b"".join(records[first:end]))
        except ValueError as error:
            if end - first == 1:
                yield first, end, error
            else:
                middle = (first + end) // 2
                stack += [(middle, end), (first, middle)]
            continue
        yield first, end, table


def is_compressed(name: str) -> bool:
    return name.lower().endswith((".gz", ".zst"))


def whole_lines(
    reader: Reader,
    start: int,
    end: int | None,
    quote: bytes | None = None,
    *,
    after_newline: bool = False,
    size: int = 0,
) -> Iterator[tuple[int, bytes]]:
    """(offset, lines) for the lines that start in start..end, in chunks that end with a line.

    after_newline  the reader stands at the byte before the range: lines start after a newline
    size           bytes read at a time, instead of 4 MiB
    """
    rest = b""
    while True:
        data = reader.read(size or CHUNK)
        rest += data
        if after_newline and rest:
            newline = rest.find(b"\n")
            if newline < 0:
                if not data:
                    return
                start, rest = start + len(rest), b""
                continue
            start, rest, after_newline = start + newline + 1, rest[newline + 1 :], False
        if end is not None and start >= end:
            return
        if end is not None and start + len(rest) >= end:
            last = rest.find(b"\n", max(0, end - 1 - start))
            if last >= 0 or not data:
                yield start, rest if last < 0 else rest[: last + 1]
                return
        if not data:
            if rest:
                yield start, rest
            return
        here = _last_end(rest, quote)
        if here:
            yield start, rest[:here]
            start, rest = start + here, rest[here:]
        elif len(rest) > LONGEST:
            raise BadInput(
                f"a line is longer than {LONGEST >> 20} MiB, from byte {start} on",
                "Check that the file is text of this format.",
                offset=start,
            )


def _last_end(data: bytes, quote: bytes | None) -> int:
    """End of the last whole record in `data`; 0 where there is none."""
    here = data.rfind(b"\n") + 1
    if quote is None or not here:
        return here
    inside = data.count(quote, 0, here) % 2
    while inside and here:
        before = data.rfind(b"\n", 0, here - 1) + 1
        inside = (inside + data.count(quote, before, here)) % 2
        here = before
    return here


def split(data: bytes, quote: bytes | None) -> list[tuple[int, bytes]]:
    """(offset, record) of every record, its newline included."""
    found: list[tuple[int, bytes]] = []
    start = here = 0
    inside = 0
    while here < len(data):
        newline = data.find(b"\n", here)
        after = len(data) if newline < 0 else newline + 1
        if quote is not None:
            inside = (inside + data.count(quote, here, after)) % 2
        here = after
        if not inside or here == len(data):
            found.append((start, data[start:here]))
            start = here
    return found
