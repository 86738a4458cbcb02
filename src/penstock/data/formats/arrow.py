"""Arrow IPC files and streams, Feather 2; pieces are record batches of a file.

Local files are memory-mapped, so blocks are views of the file: nothing is copied unless it is
compressed. Offsets and texts are validated, because damage would otherwise be a crash. A file
must not be cut short while its blocks are used: that is SIGBUS, as for any memory map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.hashing import Hasher
from penstock.data.formats import remote
from penstock.data.formats.base import FileSource, bare, blocks
from penstock.data.formats.files import (
    File,
    digest_whole,
    file_name,
    of_the_system,
    open_bytes,
    remembered,
    steady,
)
from penstock.data.formats.port import BadRecord, Block, Input
from penstock.data.formats.schemas import Schemas

_FILE, _FEATHER1 = b"ARROW1", b"FEA1"


class ArrowSource(FileSource):
    """`open_source("rows.arrow")`; a place is file, batch and row of the batch."""

    format = "arrow"
    suffixes = (".arrow", ".feather", ".ipc", ".arrows")

    def inputs(self) -> Sequence[Input]:
        files = self.files()
        schemas = Schemas(set(self.cast))
        found: list[Input] = []
        for file in files:
            with self._open(file.whole()) as reader:
                schemas.add(file.name, self.chosen(bare(reader.schema)))
                found.extend(self._pieces(file, reader))
        schemas.raise_if_any()
        if self._schema is None:
            assert schemas.first is not None
            self._schema = self.settle(schemas.first)
        return found

    def digest(self, input: Input) -> str:
        if input.piece is None:
            return digest_whole(input)

        def compute() -> str:
            hasher = Hasher()
            with self._open(input) as reader:
                hasher.update(reader.schema.serialize().to_pybytes())
                for _, batch in _batches(reader, input):
                    hasher.update(memoryview(batch.serialize()))
            return hasher.digest

        return remembered(input, "batches", compute)

    def read(self, input: Input) -> Iterator[Block | BadRecord]:
        name = file_name(input)
        with self._open(input) as reader:
            for number, batch in _batches(reader, input):
                table = self.fit(pa.Table.from_batches([batch]), _where(name, number))
                yield from blocks(table, _place(name, number))

    @contextmanager
    def _open(self, input: Input) -> Iterator[Any]:
        """A reader of the file or stream; damage in the block becomes BadInput."""
        with steady(input), self._bytes(input) as stream:
            try:
                start = bytes(stream.read(len(_FILE)))
                stream.seek(0)
                if start.startswith(_FEATHER1):
                    raise pa.ArrowInvalid("it is Feather 1, which pandas wrote before 2020")
                whole = start == _FILE
                yield pa.ipc.open_file(stream) if whole else pa.ipc.open_stream(stream)
            except (pa.ArrowException, OSError, EOFError) as error:
                if of_the_system(error):
                    raise
                raise BadInput(
                    f"{file_name(input)} is no whole Arrow file or stream: {error} "
                    f"(near byte {stream.tell()})",
                    "Write or copy it again, or leave it out.",
                    path=input.uri,
                    offset=stream.tell(),
                ) from None

    def _bytes(self, input: Input) -> Any:
        if remote.is_remote(input.uri):
            return pa.PythonFile(open_bytes(input.uri, ahead=0), "r")
        return pa.memory_map(input.uri) if input.size else pa.BufferReader(b"")

    def _pieces(self, file: File, reader: Any) -> Iterator[Input]:
        count = getattr(reader, "num_record_batches", 1)  # a stream does not know
        if file.size <= self.piece_bytes or count <= 1:
            yield file.whole()
            return
        step = max(1, count * self.piece_bytes // file.size)
        for first in range(0, count, step):
            end = min(first + step, count)
            yield file.piece("batch", first, end, file.size * (end - first) // count)


def _batches(reader: Any, input: Input) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The input's batches by number, validated before anything follows an offset of theirs."""
    found: Iterator[tuple[int, pa.RecordBatch]]
    if hasattr(reader, "get_batch"):
        _, first, end = input.piece or ("batch", 0, reader.num_record_batches)
        found = ((number, reader.get_batch(number)) for number in range(first, end))
    else:
        found = enumerate(reader)
    for number, batch in found:
        batch.validate(full=True)
        yield number, batch


def _where(name: str, number: int) -> Callable[[], str]:
    return lambda: f"{name} batch {number}"


def _place(name: str, number: int) -> Callable[[int], str]:
    return lambda row: f"{name} batch {number} row {row}"
