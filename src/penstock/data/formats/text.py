"""Plain text: a row per file (key and text), or a row per line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.data.formats.base import meant
from penstock.data.formats.lines import LineSource
from penstock.data.formats.listing import Given
from penstock.data.formats.port import PIECE_BYTES, Input
from penstock.data.formats.small import Bad, SmallFiles

_SUFFIXES = (".txt", ".md", ".rst", ".py", ".text", ".log")


class TextFilesSource(SmallFiles):
    """`open_source("lib/**/*.py")`: key = relative path, text = the file's content.

    encoding  of the text; a file that is not in it is a bad record with the line
    """

    format = "text"
    suffixes = _SUFFIXES

    def __init__(
        self,
        given: Given,
        *,
        columns: Sequence[str] | None = None,
        cast: Mapping[str, str] | None = None,
        piece_bytes: int = PIECE_BYTES,
        encoding: str = "utf-8",
    ) -> None:
        super().__init__(given, columns=columns, cast=cast, piece_bytes=piece_bytes)
        self._encoding = _known(encoding)

    def inputs(self) -> Sequence[Input]:
        files = self.files()
        if self._schema is None:
            fields = [meant("key", pa.string(), "key"), meant("text", pa.string(), "text")]
            self._schema = self.settle(pa.schema(fields))
        return [file.whole() for file in files]

    def row(self, input: Input, data: bytes) -> dict[str, Any] | Bad:
        try:
            return {"key": input.name, "text": data.decode(self._encoding)}
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            return Bad(f"byte {error.start} of the file is not {self._encoding}", f":{line}")

    def array(self, values: list[Any], field: pa.Field) -> pa.Array:
        return pa.array(values, field.type)


class TextLinesSource(LineSource):
    """`open_source("corpus.txt.gz", format="lines")`: a row per line that is not blank, without
    its end."""

    format = "lines"
    suffixes = tuple(each + more for each in _SUFFIXES for more in ("", ".gz", ".zst"))

    def __init__(
        self,
        given: Given,
        *,
        columns: Sequence[str] | None = None,
        cast: Mapping[str, str] | None = None,
        piece_bytes: int = PIECE_BYTES,
        encoding: str = "utf-8",
    ) -> None:
        super().__init__(given, columns=columns, cast=cast, piece_bytes=piece_bytes)
        self._encoding = _known(encoding)

    def inputs(self) -> Sequence[Input]:
        files = self.files()
        if self._schema is None:
            self._schema = self.settle(pa.schema([meant("text", pa.string(), "text")]))
        return [piece for file in files for piece in self.pieces(file)]

    def parse(self, data: bytes, input: Input) -> pa.Table:
        return pa.table([pa.array(list(_lines(data, self._encoding)), pa.string())], self.schema)


def _lines(data: bytes, encoding: str) -> Iterator[str]:
    for line in data.split(b"\n"):
        if line.strip():
            yield line.removesuffix(b"\r").decode(encoding)


def _known(encoding: str) -> str:
    try:
        "".encode(encoding)
    except LookupError:
        raise BadInput(
            f'there is no encoding "{encoding}"', 'Such as "utf-8", "latin-1".'
        ) from None
    return encoding
