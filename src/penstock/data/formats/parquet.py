"""Parquet files; pieces are row groups.

Read column chunk by column chunk through plain reads, not a memory map: decoding copies anyway,
and a map would turn a file that somebody cuts short into SIGBUS. Page checksums are verified where
the file has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.base.errors import BadInput
from penstock.data.formats import remote
from penstock.data.formats.base import FileSource, bare, blocks
from penstock.data.formats.files import (
    File,
    digest_ranges,
    digest_whole,
    file_name,
    of_the_system,
    opened,
)
from penstock.data.formats.parquet_footer import footer_span, spans
from penstock.data.formats.port import BLOCK_BYTES, BadRecord, Block, Input
from penstock.data.formats.schemas import Schemas

_BATCH_ROWS = 65_536
_BUFFER = 1 << 20  # bytes of a column chunk that are read ahead
_BUFFER_REMOTE = 8 << 20  # where each read is a request
_OPENERS = 8  # footers read at a time
_REMEMBERED = 1 << 14
_footers: dict[tuple[str, str], Footer] = {}
_spans: dict[tuple[str, str], list[tuple[int, int]]] = {}


@dataclass(frozen=True, slots=True)
class Footer:
    """schema; rows of each row group, and about its bytes in the file."""

    schema: pa.Schema
    rows: tuple[int, ...]
    sizes: tuple[int, ...]


class ParquetSource(FileSource):
    """`open_source("data/*.parquet")`. Rows keep the file's order; a place is file and row.

    Differences between files' schemas are all told, except columns that are `cast` and columns of
    only missing values.
    """

    format = "parquet"
    suffixes = (".parquet", ".pq")

    def inputs(self) -> Sequence[Input]:
        files = self.files()
        schemas = Schemas(set(self.cast))
        found: list[Input] = []
        with ThreadPoolExecutor(_OPENERS) as pool:
            for file, footer in zip(files, pool.map(self._footer, files), strict=True):
                schemas.add(file.name, self.chosen(footer.schema))
                found.extend(self._pieces(file, footer))
        schemas.raise_if_any()
        if self._schema is None:
            assert schemas.first is not None
            self._schema = self.settle(schemas.first)
        return found

    def digest(self, input: Input) -> str:
        if input.piece is None:
            return digest_whole(input)
        footer = self._footer(_file_of(input))
        _, first, end = input.piece
        more = footer.schema.serialize().to_pybytes()
        return digest_ranges(input, self._spans(input)[first:end], more)

    def read(self, input: Input) -> Iterator[Block | BadRecord]:
        name = file_name(input)
        footer = self._footer(_file_of(input))
        _, first, end = input.piece or ("row-group", 0, len(footer.rows))
        row = sum(footer.rows[:first])
        with opened(input, ahead=0) as stream:
            try:
                file = _open(stream, remote.is_remote(input.uri))
                for group in range(first, end):
                    for batch in self._batches(file, group):
                        table = self.fit(batch, lambda: f"{name} row group {group}")  # noqa: B023
                        yield from blocks(table, _place(name, row, group))
                        row += batch.num_rows
            except (pa.ArrowException, OSError, EOFError) as error:
                if of_the_system(error):
                    raise
                raise BadInput(
                    f"{name} is damaged in row group {group}, from row {row} on: {error}",
                    "Write the file again, or leave it out.",
                    path=input.uri,
                    row_group=group,
                    row=row,
                ) from None

    def _batches(self, file: pq.ParquetFile, group: int) -> Iterator[pa.Table]:
        facts = file.metadata.row_group(group)
        if not facts.num_rows:
            return
        mean = max(1, facts.total_byte_size // facts.num_rows)
        rows = max(1, min(_BATCH_ROWS, BLOCK_BYTES // mean))
        for batch in file.iter_batches(
            rows, row_groups=[group], columns=self.stored(), use_threads=False
        ):
            yield pa.Table.from_batches([batch])

    def stored(self) -> list[str]:
        """The columns to read."""
        names: list[str] = self.schema.names
        return names

    def _pieces(self, file: File, footer: Footer) -> Iterator[Input]:
        """Row groups, as many together as fit into a piece; a small file is one input."""
        if file.size <= self.piece_bytes or len(footer.rows) <= 1:
            yield file.whole()
            return
        first = size = 0
        for group, more in enumerate(footer.sizes):
            if size and size + more > self.piece_bytes:
                yield file.piece("row-group", first, group, size)
                first, size = group, 0
            size += more
        yield file.piece("row-group", first, len(footer.sizes), size)

    def _spans(self, input: Input) -> list[tuple[int, int]]:
        """Where the row groups of the input's file lie; remembered for the file."""
        key = (input.uri, input.stamp)
        if key not in _spans:
            if len(_spans) >= _REMEMBERED:
                _spans.clear()
            with opened(input, ahead=0) as stream:
                size = stream.seek(0, 2)
                stream.seek(max(0, size - 8))
                try:
                    first, end = footer_span(stream.read(8), size)
                    stream.seek(first)
                    _spans[key] = spans(stream.read(end - first))
                except ValueError as error:
                    raise _no_parquet(file_name(input), error, size) from None
        return _spans[key]

    def _footer(self, file: File) -> Footer:
        key = (file.uri, file.stamp)
        if key not in _footers:
            if len(_footers) >= _REMEMBERED:
                _footers.clear()
            with opened(file.whole(), ahead=0) as stream:
                _footers[key] = _read_footer(file.name, stream)
        return _footers[key]


def _file_of(input: Input) -> File:
    return File(file_name(input), input.uri, input.size, input.stamp)


def _open(stream: Any, far: bool = False) -> pq.ParquetFile:
    size = _BUFFER_REMOTE if far else _BUFFER
    return pq.ParquetFile(
        stream, pre_buffer=False, buffer_size=size, page_checksum_verification=True
    )


def _read_footer(name: str, stream: Any) -> Footer:
    try:
        file = _open(stream)
        facts = file.metadata
        groups = [facts.row_group(i) for i in range(facts.num_row_groups)]
    except (pa.ArrowException, OSError, EOFError) as error:
        raise _no_parquet(name, error, stream.seek(0, 2)) from None
    size = stream.seek(0, 2)
    total = max(1, sum(group.total_byte_size for group in groups))
    return Footer(
        bare(file.schema_arrow),
        tuple(group.num_rows for group in groups),
        tuple(group.total_byte_size * size // total for group in groups),
    )


def _no_parquet(name: str, error: Exception, size: int) -> BadInput:
    return BadInput(
        f"{name} is no whole Parquet file: {error} (its footer should end at byte {size})",
        "Write or copy it again, or leave it out.",
        path=name,
        offset=size,
    )


def _place(name: str, first: int, group: int) -> Any:
    return lambda row: f"{name} row {first + row} (row group {group})"
