"""CSV, plain or compressed (.gz, .zst); pieces are ranges of bytes.

Types are inferred once, from the beginnings of up to 64 files, and are then the same for every file
and piece: a value that does not fit is a bad record with its line. `cast` says better.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from penstock.base.errors import BadInput
from penstock.data.formats.files import file_name, opened
from penstock.data.formats.inference import Found, of_text
from penstock.data.formats.lines import LineSource, Reader, isolate, split
from penstock.data.formats.listing import Given
from penstock.data.formats.port import PIECE_BYTES, Input
from penstock.data.formats.schemas import Schemas

_BOM = b"\xef\xbb\xbf"
_HEADER = 1 << 14  # bytes read at a time to find the header line
_LONGEST_HEADER = 1 << 24
# Of what Arrow says, without its own count of rows: a piece's, while the line of the file is told.
_ROW = re.compile(r"^CSV parse error: (Row #\d+: )?")
_COLUMN = re.compile(r"In CSV column #(\d+): (?:Row #\d+: )?(?:CSV conversion error to )?(.*)")


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
        schemas = Schemas(set(self.cast))
        alike, known = [], {}
        for file in files:
            names = self._names_of(file.whole())
            if not names:
                schemas.note("it is empty, without even a header line", file.name)
                continue
            known.update(dict.fromkeys(names))
            schemas.add(file.name, self.chosen(pa.schema([(name, pa.null()) for name in names])))
            if len(set(names)) == len(names):
                alike.append(file)
        if self._schema is None and schemas.first is not None:
            self.check_names(list(known))
            samples = {each.name: self._found(each, data) for each, data in self.samples(alike)}
            found = schemas.types(schemas.first.names, samples, text=True)
            schemas.raise_if_any()
            self._schema = self.settle(found)
        schemas.raise_if_any()
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
        text = _ROW.sub("", super().reason(error, line, input))
        if at := _COLUMN.match(text):
            name, text = self._names_of(input)[int(at[1])], at[2]
            text = f'column "{name}": {text}'
            if name not in self.cast:
                text += f' (cast={{"{name}": "string"}} takes it as text)'
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
                column_types=types,
                include_columns=None if types is None else list(types),
                null_values=self._nulls,
            ),
        )

    def _found(self, input: Input, data: bytes) -> dict[str, Found]:
        """What the good lines of a file's beginning say of each column; {} without any."""
        names = [name for name in self._names_of(input) if name not in self.cast]
        texts = {name: pa.string() for name in names}
        records = [record for _, record in split(data, self.quote)]
        parts, good = [], []
        for first, end, got in isolate(records, lambda part: self._parse(part, input, texts)):
            if isinstance(got, pa.Table) and got.num_rows:
                parts.append(got)
                good += records[first:end]
        if not names or not parts:
            return {}
        table = pa.concat_tables(parts)
        inferred = self._arrow(b"".join(good), input, None)
        return {name: self._of_cells(table[name], inferred[name]) for name in names}

    def _of_cells(self, texts: pa.ChunkedArray, inferred: pa.ChunkedArray) -> Found:
        missing = pacsv.ConvertOptions().null_values if self._nulls is None else self._nulls
        if not pa.types.is_string(inferred.type):
            cells = len(inferred) - inferred.null_count
            return Found(inferred.type, cells, cells)
        there = pc.invert(pc.is_in(texts, pa.array(missing, pa.string())))
        return of_text(texts.filter(there), True)
