"""Many small files, a row each: blocks are filled across files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.data.formats.base import FileSource
from penstock.data.formats.files import read_whole
from penstock.data.formats.port import BLOCK_BYTES, BadRecord, Block, Input

_ROWS = 4096  # of a block
_LONGEST = 1 << 30  # bytes of a file; a larger one is no sample


@dataclass(frozen=True, slots=True)
class Bad:
    """Why a file is no record; line or offset where it is known."""

    error: str
    at: str = ""


class SmallFiles(FileSource):
    """A source whose inputs are whole files, and whose records are inputs."""

    input_is_record = True

    @abstractmethod
    def row(self, input: Input, data: bytes) -> dict[str, Any] | Bad:
        """A file's row; tensors stay NumPy arrays."""

    @abstractmethod
    def array(self, values: list[Any], field: pa.Field) -> pa.Array:
        """A column of a block."""

    def read(self, input: Input) -> Iterator[Block | BadRecord]:
        return self.read_all([input])

    def read_all(self, inputs: Iterable[Input]) -> Iterator[Block | BadRecord]:
        rows: list[dict[str, Any]] = []
        names: list[str] = []
        size = 0
        for each in inputs:
            if each.size > _LONGEST:
                raise BadInput(
                    f"{each.uri} has {each.size} bytes, too many for one row",
                    "Refer to it instead of reading it.",
                )
            if rows and (size + self.size(each) > BLOCK_BYTES or len(rows) >= _ROWS):
                yield self._block(rows, names)
                rows, names, size = [], [], 0
            data = read_whole(each)
            found = self.row(each, data)
            if isinstance(found, Bad):
                if rows:
                    yield self._block(rows, names)
                    rows, names, size = [], [], 0
                yield BadRecord(each.name + found.at, found.error, data)
                continue
            rows.append(found)
            names.append(each.name)
            size += self.size(each)
        if rows:
            yield self._block(rows, names)

    def read_on(self, inputs: Iterable[Input]) -> Iterator[Block | BadRecord]:
        return self.read_all(inputs)  # a file is a record: none has a rest

    def size(self, input: Input) -> int:
        """Bytes of an input's row in memory, about."""
        return input.size

    def _block(self, rows: list[dict[str, Any]], names: list[str]) -> Block:
        def table() -> pa.Table:
            arrays = [self.array([row[each.name] for row in rows], each) for each in self.schema]
            return pa.table(arrays, schema=self.schema)

        if self.cast:
            return Block(table(), names.__getitem__)
        chosen = [{each: row[each] for each in self.schema.names} for row in rows]
        return Block(table, names.__getitem__, chosen)
