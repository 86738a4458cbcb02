"""JSON lines, plain or compressed (.gz, .zst); pieces are ranges of bytes.

One object per line. Types are inferred once, from the beginnings of up to eight files, and are
then the same everywhere: a later line with another type or an unknown field is a bad record with
its line. Text that looks like a time stays text. `cast` gives or adds columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.json as pajson

from penstock.base.errors import BadInput
from penstock.data.formats.files import File
from penstock.data.formats.lines import LineSource, isolate, split
from penstock.data.formats.port import Input
from penstock.data.formats.schemas import merged


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
        found: list[tuple[pa.Schema, int]] = []
        names = dict.fromkeys(self.cast)
        declared = pa.schema(list(self.cast.items())) if self.cast else None
        error: ValueError | None = None
        for _, data in self.samples(files):
            records = [record for _, record in split(data, None)]
            for _, _, got in isolate(records, lambda part: self._parse(part, declared, "infer")):
                if isinstance(got, pa.Table):
                    schema = pa.schema([(f.name, _as_json(f.type)) for f in got.schema])
                    found.append((schema, got.num_rows))
                    names.update(dict.fromkeys(got.schema.names))
                else:
                    error = got
        if not names:
            raise BadInput(
                f"no line of the first MiB of {self.given} is a JSON object"
                + (f": {error}" if error else ""),
                "Check that every line is one JSON object.",
            )
        return merged(list(names), found, text_holds_all=False)


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
