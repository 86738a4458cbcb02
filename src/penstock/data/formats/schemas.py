"""Whether many files have one schema; if not, every difference, with the files that have it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.data.formats.inference import Found, decided, together

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
        self._casts: dict[str, str] = {}  # that would settle differences

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
            self._differ(field.name, field.type, found, file)
        for name in schema.names:
            if name not in self.first.names:
                self.note(f'"{name}" is there, but not in {self._first_file}', file)

    def types(
        self, names: Sequence[str], samples: Mapping[str, Mapping[str, Found]], *, text: bool
    ) -> pa.Schema:
        """One type for each name from what the samples of files say: file -> column -> Found.

        Numbers become wider; a column without values is text. What does not go together is
        noted, as is a column that all rows of some files have and no row of others (JSON; CSV's
        headers are added).

        text  whether text holds what is no number (CSV), see `decided`
        """
        some = {file: found for file, found in samples.items() if found}
        self._first_file = self._first_file or next(iter(some), "")
        fields = []
        for name in names:
            each = {file: found[name] for file, found in some.items() if name in found}
            kinds = {} if name in self._cast else decided(each, text)
            kind = self._one_type(name, kinds)
            fields.append((name, pa.string() if pa.types.is_null(kind) else kind))
            if not text:
                self._note_lack(name, each, some, kind)
        return pa.schema(fields)

    def _one_type(self, name: str, kinds: Mapping[str, pa.DataType]) -> pa.DataType:
        held: pa.DataType = pa.null()
        for file, kind in kinds.items():
            if (wider := together([held, kind])) is None:
                self._differ(name, held, kind, file)
            else:
                held = wider
        return held

    def _note_lack(
        self,
        name: str,
        each: Mapping[str, Found],
        files: Iterable[str],
        kind: pa.DataType,
    ) -> None:
        lacking = [file for file in files if file not in each]
        if name in self._cast or not lacking or not all(found.always for found in each.values()):
            return
        if pa.types.is_primitive(kind) or pa.types.is_string(kind):
            self._casts[name] = _said(kind)
        for file in lacking if self._first_file in each else each:
            told = "not there" if file in lacking else f"there, but not in {self._first_file}"
            self.note(f'"{name}" is {told}', file)

    def _differ(self, name: str, kind: pa.DataType, found: pa.DataType, file: str) -> None:
        numbers = any(pa.types.is_integer(t) or pa.types.is_floating(t) for t in (kind, found))
        self._casts[name] = "float64" if numbers else "string"
        self.note(f'"{name}" is {found}, not {kind}', file)

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
            f"{self._fix()} choose what they share with columns=[…], or prepare them apart.",
            differences=told,
        )

    def _fix(self) -> str:
        if not self._casts:
            return "Give them the same columns,"
        shown = list(self._casts.items())[:_FILES_SHOWN]
        casts = ", ".join(f'"{name}": "{kind}"' for name, kind in shown)
        return f"Give one type with cast={{{casts}}},"


def _said(kind: pa.DataType) -> str:
    return "float64" if pa.types.is_float64(kind) else str(kind)
