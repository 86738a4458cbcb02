"""Whether many files have one schema; if not, every difference, with the files that have it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pyarrow as pa

from penstock.base.errors import BadInput

_FILES_SHOWN = 3


class Schemas:
    """Feed it every file's schema; the first is what the others are compared with. A column of
    only missing values has any type.

    cast  columns whose type may differ, because they are cast
    """

    def __init__(self, cast: set[str]) -> None:
        self._cast = cast
        self.first: pa.Schema | None = None
        self._first_file = ""
        self._differences: dict[str, list[str]] = {}

    def add(self, file: str, schema: pa.Schema) -> None:
        if len(set(schema.names)) < len(schema.names):
            twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
            self.note(f"two columns are named {', '.join(twice)}", file)
            return
        if self.first is None:
            self.first, self._first_file = schema, file
            return
        if schema.equals(self.first):
            return
        for field in self.first:
            if field.name not in schema.names:
                self.note(f'"{field.name}" is not there', file)
                continue
            found = schema.field(field.name).type
            if pa.types.is_null(field.type):
                self.first = self.first.set(
                    self.first.names.index(field.name), schema.field(field.name)
                )
                continue
            if found == field.type or field.name in self._cast or pa.types.is_null(found):
                continue
            self.note(f'"{field.name}" is {found}, not {field.type}', file)
        for name in schema.names:
            if name not in self.first.names:
                self.note(f'"{name}" is there, but not in {self._first_file}', file)

    def note(self, difference: str, file: str) -> None:
        self._differences.setdefault(difference, []).append(file)

    def raise_if_any(self) -> None:
        """Raise BadInput with all differences, each with its first files."""
        if not self._differences:
            return
        told = []
        for difference, files in self._differences.items():
            more = len(files) - _FILES_SHOWN
            shown = ", ".join(files[:_FILES_SHOWN]) + (f" and {more} more" if more > 0 else "")
            told.append(f"{difference} (in {shown})")
        raise BadInput(
            f"the files do not have one schema; compared with {self._first_file or 'the first'}:"
            "\n  " + "\n  ".join(told),
            "Choose what they share with columns=[…], give one type with cast={…}, or prepare "
            "them apart.",
            differences=told,
        )


def merged(
    names: Sequence[str],
    found: Iterable[tuple[pa.Schema, int]],
    *,
    text_holds_all: bool = True,
) -> pa.Schema:
    """The narrowest type for each name that holds what each schema found.

    found           (schema, rows that have it)
    text_holds_all  where no type holds all, text does (CSV); else the type of most rows
    """
    schemas = list(found)
    fields = []
    for name in names:
        rows: Counter[pa.DataType] = Counter()
        for schema, count in schemas:
            if name in schema.names and not pa.types.is_null(schema.field(name).type):
                rows[schema.field(name).type] += count
        fields.append((name, _one_type(rows, text_holds_all)))
    return pa.schema(fields)


def _one_type(rows: Counter[pa.DataType], text_holds_all: bool) -> pa.DataType:
    if not rows:
        return pa.string()
    try:
        each = [pa.schema([("x", kind)]) for kind in rows]
        return pa.unify_schemas(each, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return pa.string() if text_holds_all else rows.most_common(1)[0][0]
