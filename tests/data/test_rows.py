"""What a prepare function may give, and that all of it comes back as it went in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock.base.errors import BadInput
from penstock.blobs import Blobs, open_blobs
from penstock.data import read_split, to_numpy
from penstock.data.columns import tensor_array
from penstock.data.rows import BLOCK_ROWS, Blocks


def read(blobs: Blobs, made: Any) -> dict[str, Any]:
    return to_numpy(read_split(blobs, made, "all"), made.columns)


def schema(given: Any) -> dict[str, str]:
    blocks = Blocks(given)
    list(blocks)
    return {each.name: f"{each.kind} {each}" for each in blocks.columns or []}


DTYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"


@settings(deadline=None)
@given(
    values=st.sampled_from(DTYPES.split()).flatmap(
        lambda dtype: hnp.arrays(
            dtype, hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6)
        )
    ),
    as_rows=st.booleans(),
    shard_rows=st.integers(1, 4),
)
def test_arrays_of_every_dtype_and_shape_come_back_bit_by_bit(
    make: Any, values: np.ndarray, as_rows: bool, shard_rows: int
) -> None:
    blobs = open_blobs("memory://")
    ids = np.arange(len(values))
    given = (
        [{"id": i, "x": value} for i, value in zip(ids, values, strict=True)]
        if as_rows
        else {"id": ids, "x": values}
    )
    back = read(blobs, make(blobs, given, shard_rows=shard_rows))["x"]
    assert back.dtype == values.dtype
    assert back.shape == values.shape
    assert back.tobytes() == np.ascontiguousarray(values).tobytes()


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(), st.binary(), st.none() | st.floats()), min_size=1))
def test_words_bytes_and_missing_numbers_come_back(make: Any, values: list[Any]) -> None:
    blobs = open_blobs("memory://")
    rows = [{"id": i, "t": t, "b": b, "x": x} for i, (t, b, x) in enumerate(values)]
    if all(row["x"] is None for row in rows):
        rows[0]["x"] = 1.0
    back = read(blobs, make(blobs, rows))
    assert back["t"] == [row["t"] for row in rows]
    assert back["b"] == [row["b"] for row in rows]
    wanted = [np.nan if row["x"] is None else row["x"] for row in rows]
    assert np.array_equal(back["x"], wanted, equal_nan=True)


def test_times_come_back(make: Any, blobs: Blobs) -> None:
    at = dt.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=dt.UTC)
    rows = [{"id": 0, "at": at, "day": at.date(), "took": dt.timedelta(seconds=3)}]
    rows.append({"id": 1, "at": None, "day": at.date(), "took": dt.timedelta(0)})
    back = read(blobs, make(blobs, rows))
    assert back["at"] == [at, None]
    assert back["day"] == [at.date()] * 2
    assert back["took"] == [dt.timedelta(seconds=3), dt.timedelta(0)]


def rows() -> Iterator[dict[str, Any]]:
    for i in range(10):
        yield {"a": i, "b": np.full(3, i, np.float32), "c": str(i)}


COLUMNS = {"a": np.arange(10), "b": np.zeros((10, 3), np.float32), "c": [str(i) for i in range(10)]}
TABLE = pa.table({"a": COLUMNS["a"], "b": tensor_array(COLUMNS["b"]), "c": COLUMNS["c"]})


@pytest.mark.parametrize(
    "given",
    [
        rows(),
        list(rows()),
        COLUMNS,
        TABLE,
        TABLE.to_batches()[0],
        TABLE.to_reader(),
        [TABLE.slice(0, 4), TABLE.slice(4)],
        (TABLE.slice(i, 1).to_batches()[0] for i in range(10)),
    ],
    ids=["iterator", "list", "columns", "table", "batch", "reader", "tables", "batches"],
)
def test_rows_columns_and_arrow_give_one_schema(given: Any) -> None:
    blocks = Blocks(given)
    assert sum(block.num_rows for block in blocks) == 10
    assert [f"{each.kind} {each}" for each in blocks.columns or []] == [
        "number int64",
        "tensor float32[3]",
        "text string",
    ]


def test_anything_that_exports_arrow_is_a_table() -> None:
    class Frame:
        def __arrow_c_stream__(self, requested: object = None) -> object:
            return TABLE.__arrow_c_stream__(requested)

    assert schema(Frame()) == schema(TABLE)


def test_equivalent_arrow_types_become_ours() -> None:
    table = pa.table(
        {
            "category": pa.array(["x", "y", "x"]).dictionary_encode(),
            "large": pa.array(["x", "y", "x"], pa.large_string()),
            "pair": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int32(), 2)),
        }
    )
    assert schema(table) == {
        "category": "text string",
        "large": "text string",
        "pair": "tensor int32[2]",
    }


def test_lists_of_numbers_are_tensors_and_torch_tensors_too() -> None:
    import torch

    given = [{"list": [1, 2], "torch": torch.ones(2, 2), "scalar": np.int8(3), "flag": True}]
    assert schema(given) == {
        "list": "tensor int64[2]",
        "torch": "tensor float32[2, 2]",
        "scalar": "number int8",
        "flag": "number bool",
    }


def test_columns_may_be_lists_of_arrays_and_times() -> None:
    days = np.array(["2026-01-01", "2026-01-02"], "datetime64[D]")
    assert schema({"x": [np.zeros((2, 2)), np.ones((2, 2))], "n": [np.int8(1)] * 2, "d": days}) == {
        "x": "tensor float64[2, 2]",
        "n": "number int8",
        "d": "time date32[day]",
    }


def test_every_float_may_be_missing() -> None:
    for dtype in ("float16", "float32", "float64"):
        (block,) = Blocks([{"x": np.dtype(dtype).type(1.5)}, {"x": None}])
        assert block["x"].to_pylist() == [1.5, None]


def test_a_column_may_begin_with_missing_values() -> None:
    given = [{"x": None if i < BLOCK_ROWS + 10 else i} for i in range(BLOCK_ROWS + 20)]
    blocks = list(Blocks(given))
    assert sum(block["x"].null_count for block in blocks) == BLOCK_ROWS + 10


def test_blocks_are_bounded() -> None:
    assert max(block.num_rows for block in Blocks({"x": np.arange(20_000)})) == BLOCK_ROWS
    wide = Blocks({"x": np.zeros((100, 1 << 20), np.uint8)})
    assert max(block.num_rows for block in wide) == 16
    assert max(b.num_rows for b in Blocks({"x": row} for row in np.zeros((40, 1 << 20)))) == 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "no rows"),
        ({}, "no rows"),
        (7, "a int, which is no data"),
        ("rows", "a str, which is no data"),
        ([{"a": 1}, 5], "row 1 is a int, not a dict"),
        ([5, {"a": 1}], "a int among its rows"),
        ([{"a": None}], 'column "a" has no value in any row'),
        ([{1: 1}], "row 0 has a column named 1"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, "not equally long: a has 2, b has 3"),
        ({"a": 3}, "one value, not one per row"),
        ({"a": np.zeros((2, 0))}, "empty array"),
        ({"a": np.zeros(2, complex)}, 'column "a"'),
        ({"a": [1, "x"]}, 'column "a"'),
        ([{"a": [[1], [2, 3]]}], "uneven shape"),
        ([{"a": object()}], "object, which no column can have"),
        (pa.table({"a": [["x"], ["y"]], "b": [{"x": 1}, {"x": 2}]}), '"a" is.*"b" is struct'),
        (pa.table({"a": [[1, None], [2]]}), '"a" has missing values inside of lists'),
        ([{"a": []}, {"a": None}], "only empty lists"),
        ([{"a": [1, None]}], "a list of NoneType and int"),
        (pa.table({"a": pa.array([[1], None], pa.list_(pa.int8(), 1))}), "tensor with missing"),
        (pa.table([[1], [2]], names=["a", "a"]), "two columns have one name"),
    ],
)
def test_what_cannot_be_kept_is_one_clear_error(given: Any, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        list(Blocks(given))


def test_tables_that_differ_are_listed_with_their_first_row() -> None:
    tables = [pa.table({"a": [1, 2]}), pa.table({"a": ["x"]}), pa.table({"b": [1]})]
    with pytest.raises(BadInput) as error:
        list(Blocks(tables))
    assert error.value.facts["differences"] == [
        '"a" is string, not int64 (row 2)',
        '"a" is not there (row 3)',
        '"b" is there, but not in the first row (row 3)',
    ]


def test_endless_differences_end() -> None:
    def endless() -> Iterator[dict[str, Any]]:
        number = 0
        while True:
            yield {f"column{number}": number}
            number += 1

    with pytest.raises(BadInput, match="do not have one schema"):
        list(Blocks(endless()))


@settings(deadline=None)
@given(
    st.lists(st.none() | st.lists(st.integers(-9, 9), max_size=5), min_size=1),
    st.integers(1, 4),
    st.booleans(),
)
def test_lists_of_any_length_come_back(
    make: Any, values: list[list[int] | None], shard_rows: int, as_arrow: bool
) -> None:
    blobs = open_blobs("memory://")
    values = [[1], [1, 2], *values]  # of several lengths
    ids = range(len(values))
    arrays = [None if v is None else np.array(v, np.int16) for v in values]
    given = (
        pa.table({"id": ids, "x": pa.array(values, pa.large_list(pa.int16()))})
        if as_arrow
        else [{"id": i, "x": value} for i, value in zip(ids, arrays, strict=True)]
    )
    back = read(blobs, make(blobs, given, shard_rows=shard_rows))["x"]
    assert [None if v is None else v.tolist() for v in back] == values
    assert {v.dtype.name for v in back if v is not None} == {"int16"}


def test_arrays_become_lists_where_their_lengths_vary_in_the_first_rows() -> None:
    assert schema([{"x": [1]}, {"x": []}, {"x": None}, {"x": [1, 2]}]) == {
        "x": "list list of int64"
    }
    assert schema({"x": [np.ones(2), np.ones(3)]}) == {"x": "list list of float64"}
    assert schema([{"x": []}, {"x": np.ones(3, np.int8)}]) == {"x": "list list of int8"}
    with pytest.raises(BadInput, match=r"float64\[2\], not int64\[1\]"):
        schema([{"x": [1]}, {"x": [1.5, 2.5]}])
    with pytest.raises(BadInput, match='"x" is missing, which a tensor cannot be'):
        schema([{"x": [1, 2]}, {"x": None}])


def test_a_list_column_takes_equally_long_arrays_of_later_tables() -> None:
    even = pa.table({"x": pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2))})
    blocks = list(Blocks([pa.table({"x": [[1], [2, 3]]}), even]))
    assert [block["x"].to_pylist() for block in blocks] == [[[1], [2, 3]], [[1, 2], [3, 4]]]
