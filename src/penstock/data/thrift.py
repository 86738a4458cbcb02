"""Thrift's compact protocol, as far as Parquet's metadata need it: bytes to a tree and back.

A struct is {number of the field: (type, value)}, a list (type of the elements, [value, …]); numbers
are int, text and bytes are bytes, a bool is its own type. Nothing is known of what they mean.
Source: Apache Thrift, "Thrift compact protocol" (specification, version 1).
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)

Struct = dict[int, "Value"]


class Value(NamedTuple):
    """A field's value and its type."""

    type: int
    value: Any


class Items(NamedTuple):
    """The elements of a list, of one type."""

    type: int
    values: list[Any]


def decode(data: bytes) -> Struct:
    """The struct that some bytes begin with. Raises ValueError, IndexError: they are none."""
    return _Reader(data).struct()


def encode(value: Struct) -> bytes:
    """The bytes of a struct, its fields in ascending order."""
    out = bytearray()
    _put_struct(out, value)
    return bytes(out)


def put_varint(out: bytearray, value: int) -> None:
    """An unsigned number, seven bits at a time, the lowest first (ULEB128)."""
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def _byte(self) -> int:
        found = self._data[self._at]
        self._at += 1
        return found

    def _bytes(self, length: int) -> bytes:
        found = self._data[self._at : self._at + length]
        if len(found) < length:
            raise ValueError("the data end too soon")
        self._at += length
        return found

    def _varint(self) -> int:
        found = shift = 0
        while True:
            byte = self._byte()
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return found
            shift += 7

    def _zigzag(self) -> int:
        found = self._varint()
        return (found >> 1) ^ -(found & 1)

    def struct(self) -> Struct:
        found: Struct = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            kind = head & 0x0F
            found[number] = Value(kind, kind == TRUE if kind < BYTE else self._value(kind))
        return found

    def _value(self, kind: int) -> Any:
        if kind <= BYTE:  # of bools those in lists only
            return self._byte()
        if kind in (I16, I32, I64):
            return self._zigzag()
        if kind == DOUBLE:
            return struct.unpack("<d", self._bytes(8))[0]
        if kind == BINARY:
            return self._bytes(self._varint())
        if kind in (LIST, SET):
            head = self._byte()
            many = head >> 4 if head >> 4 < 15 else self._varint()
            return Items(head & 0x0F, [self._value(head & 0x0F) for _ in range(many)])
        if kind == STRUCT:
            return self.struct()
        raise ValueError(f"a value of the type {kind}, which Parquet's metadata have not")


def _put_struct(out: bytearray, value: Struct) -> None:
    before = 0
    for number, (kind, content) in sorted(value.items()):
        step = number - before
        if 0 < step < 16:
            out.append(step << 4 | kind)
        else:
            out.append(kind)
            _put_zigzag(out, number)
        before = number
        if kind >= BYTE:
            _put(out, kind, content)
    out.append(0)


def _put_zigzag(out: bytearray, value: int) -> None:
    put_varint(out, value << 1 if value >= 0 else ~(value << 1))


def _put(out: bytearray, kind: int, value: Any) -> None:
    if kind <= BYTE:
        out.append(value)
    elif kind in (I16, I32, I64):
        _put_zigzag(out, value)
    elif kind == DOUBLE:
        out += struct.pack("<d", value)
    elif kind == BINARY:
        put_varint(out, len(value))
        out += value
    elif kind in (LIST, SET):
        many = len(value.values)
        out.append((many if many < 15 else 15) << 4 | value.type)
        if many >= 15:
            put_varint(out, many)
        for each in value.values:
            _put(out, value.type, each)
    else:
        _put_struct(out, value)
