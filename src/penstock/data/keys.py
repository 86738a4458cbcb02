"""The key that names a sample, and the split that its key puts it into.

A key is text: an integer in decimal, text as it is, bytes in hexadecimal. Without one, the
sample's own content names it: the first 32 hex digits of SHA-256 over its columns in order of
their names, each as

    name "\\0" dtype and shape "\\0", one byte (1: there is a value, 0: missing), then the bytes of
    the value (`encoding.py`)

The split is a function of the key alone,

    u = the first 8 bytes of SHA-256(key in UTF-8), big-endian, / 2**64
    the first split whose share, added to those before it, exceeds u

so appending rows moves no row, and two datasets that share a key agree on its split.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.nearest import did_you_mean
from penstock.data.columns import Column, fixed_values, one_chunk, values_of
from penstock.data.encoding import value_bytes

KEY = "key"  # the column that is added when no column of the data is the key
DEFAULT_SPLITS = {"train": 0.7, "validation": 0.1, "test": 0.2}
_TINY = 1e-9
HASH = np.dtype([("high", ">u8"), ("low", ">u8")])  # the first half of a SHA-256
_DIGEST = np.dtype([("high", ">u8"), ("low", ">u8"), ("rest", "V16")])

Hashes = npt.NDArray[Any]  # HASH [rows]
KeyFunction = Callable[[dict[str, Any]], Any]


def key_texts(table: pa.Table, columns: list[Column], key: str | KeyFunction | None) -> list[str]:
    """The keys of a table's rows. Raises BadInput for a column or value that cannot be a key."""
    if callable(key):
        return [_text(key(row), "what the key function returns") for row in rows_of(table, columns)]
    if key is None:
        return _content_keys(table, columns)
    return column_texts(table, key, "the key column")


def column_texts(table: pa.Table, name: str, what: str) -> list[str]:
    """A column's values as keys are written. Raises BadInput: not there, or none can be a key."""
    if name not in table.column_names:
        raise BadInput(
            f'{what} "{name}" is not in the data', did_you_mean(name, table.column_names), key=name
        )
    values = table[name]
    if not values.null_count and (quick := _whole_texts(values)) is not None:
        return quick
    return [_text(value, f'{what} "{name}"') for value in values.to_pylist()]


def _whole_texts(values: pa.ChunkedArray) -> list[str] | None:
    """What `_text` says of each, at once; None for other types."""
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        found: list[str] = values.to_pylist()
    elif pa.types.is_integer(kind):
        found = values.cast(pa.string()).to_pylist()
    else:
        return None
    return found


def _text(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(int(value))
    raise BadInput(
        f"{where} holds {value!r}, which cannot name a sample",
        "A key is an integer, text or bytes, and never missing.",
    )


def rows_of(table: pa.Table, columns: list[Column]) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries: tensors and lists as NumPy arrays, references as `Reference`, all else
    as Python values."""
    values = {each.name: _row_values(one_chunk(table[each.name]), each) for each in columns}
    for number in range(table.num_rows):
        yield {name: column[number] for name, column in values.items()}


def _row_values(array: pa.Array, column: Column) -> Any:
    if column.kind == "tensor":
        return fixed_values(array, column)
    return values_of(array, column) if column.kind in ("list", "reference") else array.to_pylist()


def _content_keys(table: pa.Table, columns: list[Column]) -> list[str]:
    encoded = [_encoded(one_chunk(table[each.name]), each) for each in sorted(columns, key=_name)]
    return [
        hashlib.sha256(b"".join(parts)).hexdigest()[:32] for parts in zip(*encoded, strict=True)
    ]


def _name(column: Column) -> str:
    return column.name


def _encoded(array: pa.Array, column: Column) -> Iterator[bytes]:
    head = f"{column.name}\0{column}\0".encode()
    there = head + b"\1"
    for value in value_bytes(array, column):
        yield head + b"\0" if value is None else there + value


def check_splits(splits: Mapping[str, float] | None) -> dict[str, float]:
    """The shares, checked; the default where none are given. Raises BadInput."""
    shares = dict(DEFAULT_SPLITS if splits is None else splits)
    for name, share in shares.items():
        check_split_name(name)
        if isinstance(share, bool) or not isinstance(share, int | float) or not share > 0:
            raise BadInput(
                f'split "{name}" has a share of {share!r}',
                "Give each split a share above 0.",
                split=name,
            )
    if abs((total := sum(shares.values())) - 1) > _TINY:
        raise BadInput(
            f"the shares of the splits add up to {total:g}, not 1",
            'For example splits={"train": 0.8, "test": 0.2}, or {"all": 1} for a single split.',
            splits=shares,
        )
    return {name: float(share) for name, share in shares.items()}


def check_split_name(name: str) -> None:
    """Raises BadInput for what no reference could name."""
    if re.fullmatch(r"[\w-]+", name) is None:
        raise BadInput(
            f'"{name}" cannot be the name of a split',
            "Use letters, digits, '_' and '-'.",
            split=name,
        )


def key_hashes(keys: Sequence[str]) -> Hashes:
    """The first 16 bytes of SHA-256 of each key in UTF-8, as `HASH` [rows]."""
    sha256 = hashlib.sha256
    whole = b"".join([sha256(key.encode()).digest() for key in keys])
    return np.frombuffer(whole, _DIGEST)[["high", "low"]].astype(HASH)


def split_numbers(keys: Sequence[str], splits: Mapping[str, float]) -> npt.NDArray[np.int64]:
    """For each key the number of its split, in the order of `splits`."""
    if len(splits) == 1:
        return np.zeros(len(keys), np.int64)
    return split_of_hashes(key_hashes(keys), splits)


def split_of_hashes(hashes: Hashes, splits: Mapping[str, float]) -> npt.NDArray[np.int64]:
    """The same of keys whose hashes are known."""
    ends = np.cumsum(list(splits.values()))[:-1]
    bounds = np.array([min(int(end * 2.0**64), 2**64 - 1) for end in ends], dtype=np.uint64)
    return np.searchsorted(bounds, hashes["high"].astype(np.uint64), side="right")
