"""What every format of raw files offers: inputs in a stable order, and their rows in blocks.

A source lists its inputs: files, or pieces of large ones. Each input is read alone, in any process
that has the source's `spec()`, so that inputs are the units of preparation. Records that cannot be
read come between the blocks, with their place, so that the reader of a source decides about them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.hashing import digest_json

BLOCK_BYTES = 16 << 20  # of one block's table; one row that is larger is a block of its own
PIECE_BYTES = 64 << 20  # of a large file that is one input; see the option `piece_bytes`

Piece = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Input:
    """A file, or a piece of one.

    name   relative to what was given, unique in its source; a piece adds "#unit=first-end"
    uri    absolute path, or URL
    size   bytes in the file, of the piece (of encoded data, before decompression)
    stamp  cheap mark of the whole file: changes when the file changes
    piece  (unit, first, end): which bytes, row groups, batches, rows or groups; None is all
    """

    name: str
    uri: str
    size: int
    stamp: str
    piece: Piece | None = None

    def spec(self) -> dict[str, Any]:
        """JSON-able; `from_spec` is the way back."""
        piece = None if self.piece is None else list(self.piece)
        return {
            "name": self.name,
            "uri": self.uri,
            "size": self.size,
            "stamp": self.stamp,
            "piece": piece,
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Input:
        unit = spec.get("piece")
        piece = None if unit is None else (str(unit[0]), int(unit[1]), int(unit[2]))
        return cls(spec["name"], spec["uri"], int(spec["size"]), spec["stamp"], piece)


class Block:
    """table of at most 16 MiB (or one row); place(row of the table) says file and row, line or
    offset. `place` may look into the file again, so ask it only where it is shown.

    rows  the same as dictionaries (`keys.rows_of`), where the reader has them first: then the
          table is a function, called when somebody asks for it
    """

    __slots__ = ("_table", "place", "rows")

    def __init__(
        self,
        table: pa.Table | Callable[[], pa.Table],
        place: Callable[[int], str],
        rows: list[dict[str, Any]] | None = None,
    ) -> None:
        self._table, self.place, self.rows = table, place, rows

    def __len__(self) -> int:
        return int(self.table.num_rows) if self.rows is None else len(self.rows)

    @property
    def table(self) -> pa.Table:
        if callable(self._table):
            self._table = self._table()
        return self._table


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that cannot be read: where, why, and its bytes where they are known."""

    place: str
    error: str
    raw: bytes | None = None


class InputSource(ABC):
    """Raw data that can be read in place.

    It holds no open file between calls and may cross a fork; a generator that is not read to its
    end closes its file when it is closed.
    """

    format: ClassVar[str]
    input_is_record: ClassVar[bool] = False  # each input is one record, blocks hold several inputs

    @abstractmethod
    def spec(self) -> dict[str, Any]:
        """JSON-able; `open_source(spec)` reads the same inputs the same way in another process.

        Raises CannotTravel for data that only this process has.
        """

    @abstractmethod
    def how(self) -> dict[str, Any]:
        """What decides, beside an input's bytes, what reading it gives: format, options, types."""

    @property
    def identity(self) -> str:
        """Digest of `how()`; with an input's digest it names what reading the input gives."""
        return digest_json(self.how())

    @property
    def meanings(self) -> dict[str, str]:
        """Semantic types of columns, where the format is certain of them: column -> meaning."""
        return {}

    @abstractmethod
    def inputs(self) -> Sequence[Input]:
        """All inputs, ordered by name, then piece. Listed anew by every call.

        Raises BadInput: nothing there, files of several formats or schemas, a file that is none
        of its format.
        """

    @abstractmethod
    def digest(self, input: Input) -> str:
        """SHA-256 of the input's bytes; remembered by place, size and time of change."""

    @abstractmethod
    def read(self, input: Input) -> Iterator[Block | BadRecord]:
        """The input's rows in order.

        Raises BadInput: the file changed since it was listed or while it is read, or it cannot
        be read from some place on, which the error names.
        """

    def read_all(self, inputs: Iterable[Input]) -> Iterator[Block | BadRecord]:
        """The rows of several inputs; formats of many small files fill blocks across them."""
        for each in inputs:
            yield from self.read(each)

    def read_on(self, inputs: Iterable[Input]) -> Iterator[Block | BadRecord]:
        """As `read_all`, but where an input cannot be read from some place on, a BadRecord says so
        and the next input follows.

        Raises BadInput: a file changed, or is gone.
        """
        for each in inputs:
            try:
                yield from self.read(each)
            except BadInput as error:
                if {"before", "gone"} & error.facts.keys():
                    raise
                name = each.name if each.piece is None else each.name.rpartition("#")[0]
                yield BadRecord(name, f"the rest of {each.name} was not read: {error.what}")
