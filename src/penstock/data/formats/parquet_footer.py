"""Where the row groups of a Parquet file lie, from its footer (Thrift's compact protocol).

pyarrow tells this only through calls that end the process when a footer is damaged in certain
places (an exception of C++ that it does not catch), so the few fields needed are decoded here.
Source: parquet-format, parquet.thrift and "Thrift compact protocol encoding".
"""

from __future__ import annotations

import struct
from typing import Any

_MAGIC = b"PAR1"
# Fields, by their numbers in parquet.thrift.
_ROW_GROUPS = 4  # of FileMetaData
_COLUMNS = 1  # of RowGroup
_META = 3  # of ColumnChunk
_COMPRESSED, _DATA_PAGE, _DICTIONARY_PAGE = 7, 9, 11  # of ColumnMetaData
_DEEPEST = 32


def footer_span(end: bytes, size: int) -> tuple[int, int]:
    """(first, end) of the footer in a file of `size` bytes whose last 8 are `end`.

    Raises ValueError.
    """
    if len(end) < 8 or end[4:] != _MAGIC:
        raise ValueError("it does not end as a Parquet file does")
    length = int.from_bytes(end[:4], "little")
    if length > size - 12:
        raise ValueError("its footer is longer than the file")
    return size - 8 - length, size - 8


def spans(footer: bytes) -> list[tuple[int, int]]:
    """(first byte, the one after the last) of each row group. Raises ValueError."""
    try:
        groups = _Compact(footer).struct()[_ROW_GROUPS]
        return [_span([column[_META] for column in group[_COLUMNS]]) for group in groups]
    except (IndexError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ValueError(f"its footer is damaged: {error!r}") from None


def _span(columns: list[dict[int, Any]]) -> tuple[int, int]:
    starts, ends = [], []
    for column in columns:
        dictionary = column.get(_DICTIONARY_PAGE) or 0
        start = min(column[_DATA_PAGE], dictionary) if dictionary else column[_DATA_PAGE]
        starts.append(start)
        ends.append(start + column[_COMPRESSED])
    if not starts or min(starts) < 0:
        raise ValueError("its footer names places before the file")
    return min(starts), max(ends)


class _Compact:
    """Values of Thrift's compact protocol, one after the other; structs by field number."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._depth = 0

    def struct(self) -> dict[int, Any]:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
        found: dict[int, Any] = {}
        number = 0
        while header := self._byte():
            step, kind = header >> 4, header & 15
            number = number + step if step else self._signed()
            # In a field the type of a flag is its value.
            found[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        self._depth -= 1
        return found

    def _value(self, kind: int) -> Any:
        match kind:
            case 1 | 2 | 3:
                return self._byte()
            case 4 | 5 | 6:
                return self._signed()
            case 7:
                return struct.unpack("<d", self._bytes(8))[0]
            case 8:
                return self._bytes(self._unsigned())
            case 9 | 10:
                return self._list()
            case 11:
                return self._map()
            case 12:
                return self.struct()
            case 13:
                return self._bytes(16)
        raise ValueError(f"there is no type {kind}")

    def _list(self) -> list[Any]:
        header = self._byte()
        size = header >> 4 if header >> 4 < 15 else self._unsigned()
        return [self._value(header & 15) for _ in range(self._possible(size))]

    def _map(self) -> list[Any]:
        size = self._possible(self._unsigned())
        kinds = self._byte() if size else 0
        return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(size)]

    def _possible(self, size: int) -> int:
        if size > len(self._data) - self._at:
            raise ValueError("a list is longer than the footer")
        return size

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, size: int) -> bytes:
        self._possible(size)
        self._at += size
        return self._data[self._at - size : self._at]

    def _unsigned(self) -> int:
        result = shift = 0
        while (byte := self._byte()) & 128:
            result |= (byte & 127) << shift
            shift += 7
        return result | byte << shift

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
