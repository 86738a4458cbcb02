"""JSON lines, plain or compressed (.gz, .zst); pieces are ranges of bytes.

One object per line. Types are inferred once, from the beginnings of up to 64 files, and are then
the same everywhere: a line with another type or an unknown field is a bad record with its line. A
field that some lines of a file lack may be missing anywhere; one that all lines of a file have and
another file lacks is a difference between files, unless it is `cast`. Text that looks like a
time stays text. `cast` gives or adds columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.json as pajson

from penstock.base.errors import BadInput
from penstock.data.formats.files import File
from penstock.data.formats.inference import Found, most
from penstock.data.formats.lines import LineSource, isolate, split
from penstock.data.formats.port import Input
from penstock.data.formats.schemas import Schemas


class JsonLinesSource(LineSource):
    """`open_source("rows.jsonl.gz")`; a missing field is a missing value."""

    format = "jsonl"
    suffixes = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".jsonl.zst", ".ndjson.zst")

    def inputs(self) -> Sequence[Input]:
        files = self.files()
        if self._schema is None:
            self._schema = self.settle(self._infer(files))
        return [piece for file in files for piece in self.pieces(file)]

    def parse(self, data: bytes, input: Input) -> pa.Table:
        strict = "error" if self.columns is None else "ignore"
        table = self._parse(data, self.schema, strict).select(self.schema.names)
        _one_each(data, table.num_rows)
        return table

    def _parse(self, data: bytes, schema: pa.Schema | None, unexpected: str) -> pa.Table:
        """Lines as a table; schema None infers it. Raises ValueError."""
        data.decode()  # Arrow's JSON takes any bytes for text
        if not data.strip():
            return (schema or pa.schema([])).empty_table()
        return pajson.read_json(
            pa.BufferReader(data),
            pajson.ReadOptions(use_threads=False, block_size=len(data) + 1),
            pajson.ParseOptions(explicit_schema=schema, unexpected_field_behavior=unexpected),
        )

    def _infer(self, files: Sequence[File]) -> pa.Schema:
        names = dict.fromkeys(self.cast)
        samples: dict[str, dict[str, Found]] = {}
        error: ValueError | None = None
        for input, data in self.samples(files):
            parts = []
            for got in self._parts(data):
                if isinstance(got, pa.Table):
                    parts.append(got)
                    names.update(dict.fromkeys(got.schema.names))
                else:
                    error = got
            samples[input.name] = _found(parts)
        if not names:
            raise BadInput(
                f"no line of the first MiB of {self.given} is a JSON object"
                + (f": {error}" if error else ""),
                "Check that every line is one JSON object.",
            )
        self.check_names(list(names))
        chosen = [name for name in names if self.columns is None or name in self.columns]
        schemas = Schemas(set(self.cast))
        found = schemas.types(chosen, samples, text=False)
        schemas.raise_if_any()
        return found

    def _parts(self, data: bytes) -> Iterator[pa.Table | ValueError]:
        declared = pa.schema(list(self.cast.items())) if self.cast else None
        records = [record for _, record in split(data, None)]
        for _, _, got in isolate(records, lambda part: self._parse(part, declared, "infer")):
            yield got


def _found(parts: Sequence[pa.Table]) -> dict[str, Found]:
    """What a file's good lines say of each field; of types that do not go together the most."""
    found = {}
    rows = sum(part.num_rows for part in parts)
    for name in dict.fromkeys(name for part in parts for name in part.schema.names):
        columns = [part[name] for part in parts if name in part.schema.names]
        counts = [(_as_json(each.type), len(each) - each.null_count) for each in columns]
        cells = sum(count for _, count in counts)
        kind, fits = most(counts)
        found[name] = Found(kind, cells, fits, always=cells == rows)
    return found


def _one_each(data: bytes, objects: int) -> None:
    """Raise ValueError unless each line is an object: Arrow also takes two on a line, or one on
    two. Where every line begins an object and there are as many objects as lines, it is so."""
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    if objects == lines == data.count(b"\n{") + data.startswith(b"{"):
        return
    stripped = [line for each in data.split(b"\n") if (line := each.strip())]
    if objects != len(stripped) or not all(line.startswith(b"{") for line in stripped):
        raise ValueError("it is not one object on one line")


def _as_json(kind: pa.DataType) -> pa.DataType:
    """What JSON said: Arrow infers times from text, which other lines may not keep to."""
    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_as_json(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _as_json(field.type)) for field in kind])
    return kind
