"""CSV, plain or compressed (.gz, .zst); pieces are ranges of bytes.

Types are inferred once, from the beginnings of up to eight files, and are then the same for every
file and piece: a later value that does not fit is a bad record with its line. `cast` says better.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.csv as pacsv

from penstock.base.errors import BadInput
from penstock.data.formats.files import File, file_name, opened
from penstock.data.formats.lines import LineSource, Reader, isolate, split
from penstock.data.formats.listing import Given
from penstock.data.formats.port import PIECE_BYTES, Input
from penstock.data.formats.schemas import Schemas, merged

_BOM = b"\xef\xbb\xbf"
_HEADER = 1 << 14  # bytes read at a time to find the header line
_LONGEST_HEADER = 1 << 24


class CsvSource(LineSource):
    """`open_source("rows/*.csv")`

    delimiter           by default "," and for .tsv a tab
    names               of the columns, where the files have no header line
    quote_char          "" turns quoting off
    newlines_in_values  quoted values may hold newlines; a file is then one piece
    nulls               texts that stand for a missing value, instead of Arrow's usual ones
    encoding            of the text
    """

    format = "csv"
    suffixes = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.zst", ".tsv.zst")

    def __init__(
        self,
        given: Given,
        *,
        columns: Sequence[str] | None = None,
        cast: Mapping[str, str] | None = None,
        piece_bytes: int = PIECE_BYTES,
        delimiter: str | None = None,
        names: Sequence[str] | None = None,
        quote_char: str = '"',
        newlines_in_values: bool = False,
        nulls: Sequence[str] | None = None,
        encoding: str = "utf-8",
    ) -> None:
        super().__init__(given, columns=columns, cast=cast, piece_bytes=piece_bytes)
        self._delimiter = delimiter
        self._names = None if names is None else list(names)
        self._quote_char = quote_char
        self._newlines = newlines_in_values
        self._nulls = nulls
        self._encoding = encoding
        self.quote = quote_char.encode() if newlines_in_values and quote_char else None
        self._headers: dict[tuple[str, str], bytes] = {}

    def inputs(self) -> Sequence[Input]:
        files = self.files()
        schemas = Schemas(set())
        for file in files:
            if names := self._names_of(file.whole()):
                schemas.add(file.name, pa.schema([(name, pa.null()) for name in names]))
            else:
                schemas.note("it is empty, without even a header line", file.name)
        schemas.raise_if_any()
        if self._schema is None:
            self._schema = self.settle(self._infer(files))
        return [piece for file in files for piece in self.pieces(file)]

    def preamble(self, input: Input) -> bytes:
        """The header line; with `names` there is none."""
        if self._names is not None:
            return b""
        key = (input.uri, input.stamp)
        if key not in self._headers:
            with opened(input) as stream:
                self._headers[key] = self._read_header(Reader(stream, file_name(input)))
        return self._headers[key]

    def _read_header(self, reader: Reader) -> bytes:
        data = b""
        while len(data) < _LONGEST_HEADER and (more := reader.read(_HEADER)):
            data += more
            if b"\n" in more and (header := split(data, self.quote)[0][1]).endswith(b"\n"):
                return header
        return data

    def _names_of(self, input: Input) -> list[str]:
        """Of the columns of one file; [] where it is empty."""
        if self._names is not None:
            return self._names
        header = self.preamble(input).removeprefix(_BOM)
        try:
            lines = io.StringIO(header.decode(self._encoding), newline="")
            found = csv.reader(
                lines,
                delimiter=self._delimiter_of(file_name(input)),
                quotechar=self._quote_char or None,
                quoting=csv.QUOTE_MINIMAL if self._quote_char else csv.QUOTE_NONE,
            )
            return next(found, [])
        except (UnicodeDecodeError, LookupError, csv.Error) as error:
            raise BadInput(
                f"{file_name(input)}:1: the header is not {self._encoding} text: {error}",
                'Give its encoding, such as encoding="latin-1", or leave the file out.',
                path=input.uri,
            ) from None

    def _delimiter_of(self, name: str) -> str:
        tabs = ".tsv" in name.lower().rpartition("/")[2]
        return self._delimiter or ("\t" if tabs else ",")

    def parse(self, data: bytes, input: Input) -> pa.Table:
        return self._parse(data, input, {field.name: field.type for field in self.schema})

    def reason(self, error: ValueError, line: bytes, input: Input) -> str:
        text = super().reason(error, line, input)
        quote = self._quote_char.encode()
        if quote and not self._newlines and line.count(quote) % 2:
            text += " (does a quoted value go on in the next line? then newlines_in_values=True)"
        return text

    def _parse(
        self, data: bytes, input: Input, types: Mapping[str, pa.DataType] | None
    ) -> pa.Table:
        """Lines as a table; types None infers them. Raises ValueError.

        Arrow lets an open quotation swallow all lines that follow, so rows are counted.
        """
        table = self._arrow(data, input, types)
        mark = self._quote_char.encode()
        if mark and mark in data:
            records = data.count(b"\n") + (not data.endswith(b"\n"))
            if table.num_rows != records:
                records = sum(1 for _, each in split(data, self.quote) if each.strip())
            if table.num_rows != records or self._is_open(data, mark, input, types):
                raise ValueError("a quoted value is not closed")
        return table

    def _is_open(
        self,
        data: bytes,
        mark: bytes,
        input: Input,
        types: Mapping[str, pa.DataType] | None,
    ) -> bool:
        """Whether the last record ends inside a quotation; a mark within plain text opens none."""
        last = data[data.rfind(b"\n", 0, len(data) - 1) + 1 :].rstrip(b"\r\n") + b"\n"
        if self.quote is not None or last.count(mark) % 2 == 0:
            return self.quote is not None and data.count(mark) % 2 == 1
        return bool(self._arrow(last * 2, input, types).num_rows < 2)

    def _arrow(
        self, data: bytes, input: Input, types: Mapping[str, pa.DataType] | None
    ) -> pa.Table:
        if not data.strip():
            return pa.table({name: pa.array([], kind) for name, kind in (types or {}).items()})
        return pacsv.read_csv(
            pa.BufferReader(data),
            pacsv.ReadOptions(
                use_threads=False,
                block_size=len(data) + 1,
                column_names=self._names_of(input),
                encoding=self._encoding,
            ),
            pacsv.ParseOptions(
                delimiter=self._delimiter_of(file_name(input)),
                quote_char=self._quote_char or False,
                newlines_in_values=self._newlines,
            ),
            pacsv.ConvertOptions(
                column_types=self.cast if types is None else types,
                include_columns=None if types is None else list(types),
                null_values=self._nulls,
            ),
        )

    def _infer(self, files: Sequence[File]) -> pa.Schema:
        """The narrowest types that hold all samples; text where there are no values."""
        found: list[tuple[pa.Schema, int]] = []
        for input, data in self.samples(files):
            records = [record for _, record in split(data, self.quote)]
            for _, _, got in isolate(records, lambda part, i=input: self._parse(part, i, None)):  # type: ignore[misc]
                if isinstance(got, pa.Table):
                    found.append((_as_text(got.schema), got.num_rows))
        return merged(self._names_of(files[0].whole()), found)


def _as_text(schema: pa.Schema) -> pa.Schema:
    """Arrow infers bytes where text is not UTF-8; we want those lines told."""
    kinds = ((f.name, pa.string() if pa.types.is_binary(f.type) else f.type) for f in schema)
    return pa.schema(list(kinds))
