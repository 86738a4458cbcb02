"""The bytes of values, beside the formula in plain Python."""

from __future__ import annotations

import datetime
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.data.columns import Column, described
from penstock.data.encoding import encoded, value_bytes

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


def sized(data: bytes) -> bytes:
    return struct.pack("<q", len(data)) + data


CASES: dict[str, tuple[Column, list[Any], list[bytes | None]]] = {
    "text": (
        Column("x", "text", "string"),
        ["", None, "ä", "abcdefghi"],
        [sized(b""), None, sized("ä".encode()), sized(b"abcdefghi")],
    ),
    "bytes": (
        Column("x", "bytes", "binary"),
        [b"\0", b"\xff\0", None],
        [sized(b"\0"), sized(b"\xff\0"), None],
    ),
    "number": (
        Column("x", "number", "int16"),
        [1, None, -2],
        [struct.pack("<h", 1), None, struct.pack("<h", -2)],
    ),
    "flag": (Column("x", "number", "bool"), [True, None, False], [b"\1", None, b"\0"]),
    "half": (Column("x", "number", "float16"), [np.float16(0.5)], [struct.pack("<e", 0.5)]),
    "time": (
        Column("x", "time", "timestamp[s, tz=UTC]"),
        [None, NOW],
        [None, struct.pack("<q", int(NOW.timestamp()))],
    ),
    "day": (
        Column("x", "time", "date32[day]"),
        [datetime.date(1970, 1, 3)],
        [struct.pack("<i", 2)],
    ),
    "list": (
        Column("x", "list", "float32"),
        [[1.5], None, [], [2.5, 3.5]],
        [sized(struct.pack("<f", 1.5)), None, sized(b""), sized(struct.pack("<ff", 2.5, 3.5))],
    ),
    "list of flags": (
        Column("x", "list", "bool"),
        [[True, False], [], [True]],
        [sized(b"\1\0"), sized(b""), sized(b"\1")],
    ),
    "list after a gap": (
        Column("x", "list", "int64"),
        [None, [1, 2]],
        [None, sized(struct.pack("<qq", 1, 2))],
    ),
    "reference": (
        Column("x", "reference", "range"),
        [{"uri": "a/b", "start": 7, "length": None}, None],
        [sized(struct.pack("<qq", 7, -1) + b"a/b"), None],
    ),
    "no rows": (Column("x", "text", "string"), [], []),
    "all missing": (Column("x", "text", "string"), [None, None], [None, None]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("skipped", [0, 1])
def test_values_are_encoded_as_the_formula_says(case: str, skipped: int) -> None:
    column, values, wanted = CASES[case]
    table = described(pa.table({"x": pa.array(values, _kind(column))}), [column])
    array = table["x"].combine_chunks().slice(skipped)
    assert list(value_bytes(array, column)) == wanted[skipped:]
    data, ends = encoded(array, column)
    assert bytes(data[ends[0] : ends[-1]]) == b"".join(each or b"" for each in wanted[skipped:])
    assert len(ends) == len(array) + 1


def _kind(column: Column) -> pa.DataType:
    from penstock.data.columns import arrow_type

    return arrow_type(column)


def test_a_tensor_is_its_numbers_in_order() -> None:
    values = np.arange(12, dtype=">i2").reshape(2, 2, 3)
    array = pa.FixedShapeTensorArray.from_numpy_ndarray(values.astype("<i2"))
    found = list(value_bytes(array, Column("x", "tensor", "int16", (2, 3))))
    assert found == [each.astype("<i2").tobytes() for each in values]
