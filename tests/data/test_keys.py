"""What names a sample, and which split its name puts it into."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.errors import BadInput
from penstock.data.columns import column_of_type, tensor_array
from penstock.data.keys import DEFAULT_SPLITS, check_splits, key_texts, split_numbers

keys = st.lists(st.text(max_size=10), max_size=50)


def table_of(**columns: object) -> tuple[pa.Table, list]:
    table = pa.table(columns)
    return table, [column_of_type(f.name, f.type) for f in table.schema]


def test_the_split_is_the_formula_of_the_docstring() -> None:
    names = [str(i) for i in range(500)]
    for key, number in zip(names, split_numbers(names, DEFAULT_SPLITS), strict=True):
        u = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
        assert number == (0 if u < 0.7 else 1 if u < 0.7 + 0.1 else 2)


@given(keys, keys)
def test_appending_rows_moves_no_row(before: list[str], after: list[str]) -> None:
    whole = split_numbers(before + after, DEFAULT_SPLITS)
    assert whole[: len(before)].tolist() == split_numbers(before, DEFAULT_SPLITS).tolist()


def test_shares_are_kept_about() -> None:
    counts = np.bincount(split_numbers([str(i) for i in range(100_000)], DEFAULT_SPLITS))
    assert np.allclose(counts / 100_000, [0.7, 0.1, 0.2], atol=0.01)


def test_one_split_takes_all() -> None:
    assert split_numbers(["a", "b"], {"all": 1.0}).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("splits", "told"),
    [
        ({"train": 0.7, "test": 0.2}, "add up to 0.9"),
        ({}, "add up to 0"),
        ({"train": 1.5, "test": -0.5}, '"test" has a share of -0.5'),
        ({"train": 0.5, "a:b": 0.5}, '"a:b" cannot be the name'),
        ({"train": "much"}, "'much'"),
        ({"train": float("nan")}, "nan"),
    ],
)
def test_splits_that_do_not_hold_are_refused(splits: dict, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        check_splits(splits)


def test_keys_are_integers_words_or_bytes() -> None:
    table, columns = table_of(i=[7, -1], t=["a", "é"], b=[b"\x01\xff", b""])
    assert key_texts(table, columns, "i") == ["7", "-1"]
    assert key_texts(table, columns, "t") == ["a", "é"]
    assert key_texts(table, columns, "b") == ["01ff", ""]
    assert key_texts(table, columns, lambda row: f"{row['t']}/{row['i']}") == ["a/7", "é/-1"]


@pytest.mark.parametrize("values", [[1.5, 2.5], [True, False], [1, None]])
def test_other_values_cannot_name_a_sample(values: list) -> None:
    table, columns = table_of(k=values)
    with pytest.raises(BadInput, match="cannot name a sample"):
        key_texts(table, columns, "k")


def test_a_key_column_that_is_not_there_offers_the_nearest() -> None:
    table, columns = table_of(ident=[1], x=[2])
    with pytest.raises(BadInput) as error:
        key_texts(table, columns, "idents")
    assert '"ident"' in error.value.fix


def test_without_a_key_the_content_is_the_name_as_the_docstring_says() -> None:
    images = np.arange(8, dtype=np.int16).reshape(2, 2, 2)
    table, columns = table_of(
        y=[1.5, None],
        x=tensor_array(images),
        s=["é", "b"],
        f=[True, None],
        t=pa.array([3, 4], "date32"),
    )

    def digest(parts: list[bytes]) -> str:
        return hashlib.sha256(b"".join(parts)).hexdigest()[:32]

    assert key_texts(table, columns, None) == [
        digest(
            [
                b"f\0bool\0\1\1",
                b"s\0string\0\1" + struct.pack("<Q", 2) + "é".encode(),
                b"t\0date32[day]\0\1" + struct.pack("<i", 3),
                b"x\0int16[2, 2]\0\1" + struct.pack("<4h", 0, 1, 2, 3),
                b"y\0double\0\1".replace(b"double", b"float64") + struct.pack("<d", 1.5),
            ]
        ),
        digest(
            [
                b"f\0bool\0\0",
                b"s\0string\0\1" + struct.pack("<Q", 1) + b"b",
                b"t\0date32[day]\0\1" + struct.pack("<i", 4),
                b"x\0int16[2, 2]\0\1" + struct.pack("<4h", 4, 5, 6, 7),
                b"y\0float64\0\0",
            ]
        ),
    ]


def test_the_order_of_the_columns_does_not_change_the_name() -> None:
    one, two = table_of(a=[1, 2], b=["x", "y"]), table_of(b=["x", "y"], a=[1, 2])
    assert key_texts(*one, None) == key_texts(*two, None)
