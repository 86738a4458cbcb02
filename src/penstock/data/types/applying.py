"""Columns get their types: given, or seen where that is certain; and values are compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.data import decoding
from penstock.data.columns import Column, one_chunk
from penstock.data.types.base import Type, Types
from penstock.data.types.sheets import TYPES, Audio, EncodedImage, Key

_SHOWN = 5  # rows that an error names


def apply_types(columns: Sequence[Column], types: Types | None) -> list[Column]:
    """The columns with the meanings that `types` gives them by name, each checked.

    A one-dimensional tensor whose type varies becomes a list: cast tables with `canonical`.
    Raises BadInput: a name that no column has, something that is no type, every misfit at once.
    """
    types = types or {}
    names = [each.name for each in columns]
    for name, given in types.items():
        if not isinstance(given, Type):
            raise BadInput(
                f'types={{"{name}": {given!r}}} is no type',
                f"Give one of {', '.join(each.__name__ for each in TYPES.values())}, "
                "for example Image().",
                column=name,
            )
        if name not in names:
            raise BadInput(
                f'types names a column "{name}", which is not in the data',
                did_you_mean(name, names),
                column=name,
            )
    found, errors = [], []
    for column in columns:
        try:
            found.append(types[column.name].check(column) if column.name in types else column)
        except BadInput as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise BadInput(
            "columns do not fit their types:\n  " + "\n  ".join(error.what for error in errors),
            " ".join(dict.fromkeys(error.fix for error in errors)),
            columns=[error.facts["column"] for error in errors],
        )
    return found


def varying(types: Types | None) -> set[str]:
    """The columns that are kept as lists whatever the lengths that come first."""
    return {name for name, each in (types or {}).items() if isinstance(each, Type) and each.varies}


def mark_key(columns: Sequence[Column], key: str) -> list[Column]:
    """The columns, the one that names samples marked as such where it means nothing else."""
    return [
        Key().check(each) if each.name == key and not each.meaning and not Key().reasons(each)
        else each
        for each in columns
    ]  # fmt: skip


def infer_types(table: pa.Table, columns: Sequence[Column]) -> list[Column]:
    """The columns with the meanings that are certain: bytes that all begin as one kind of file
    does."""
    return [each if each.meaning else _inferred(each, table) for each in columns]


def _inferred(column: Column, table: pa.Table) -> Column:
    if column.kind != "bytes":
        return column
    values = one_chunk(table[column.name]).drop_null()
    if not len(values):
        return column
    for format in ("jpeg", "png", "gif", "webp"):
        if pc.all(decoding.is_image(values, format)).as_py():
            return EncodedImage(format).check(column)
    if pc.all(decoding.is_image(values)).as_py():
        return EncodedImage().check(column)
    return Audio().check(column) if pc.all(decoding.is_wav(values)).as_py() else column


def check_values(
    table: pa.Table, columns: Sequence[Column], types: Types | None, first: int = 0
) -> None:
    """Compare every value with the type that the user gave its column.

    first  number of the table's first row, for the error
    Raises BadInput that names the first rows.
    """
    for column in columns:
        if types and column.name in types:
            refuse_wrong(table[column.name], column, types[column.name], first)


def refuse_wrong(values: pa.ChunkedArray, column: Column, given: Type, first: int = 0) -> None:
    """Raise BadInput where a value is not what its type says, naming the first rows."""
    array = one_chunk(values)
    if (found := given.wrong(array)) is None:
        return
    wrong = pc.and_(array.is_valid(), found.fill_null(False))
    rows = np.flatnonzero(wrong.to_numpy(zero_copy_only=False))
    if not len(rows):
        return
    shown = [int(row) + first for row in rows[:_SHOWN]]
    more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    raise BadInput(
        f'column "{column.name}" holds values that are no {given!r}: '
        f"rows {', '.join(map(str, shown))}{more}",
        "Mend or leave out these rows, or take another type for the column.",
        column=column.name,
        rows=shown,
        count=len(rows),
    )
