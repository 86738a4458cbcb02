"""What columns of CSV and JSON lines are, by most of their cells in all files; the rest is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstock.base.errors import BadInput
from penstock.data.formats import open_source

from .examples import read


def write(path: Path, header: str, rows: Sequence[str]) -> Path:
    path.write_text("\n".join([header, *rows, ""]))
    return path


def differences(folder: Path, **options: Any) -> BadInput:
    with pytest.raises(BadInput) as caught:
        open_source(folder, **options).inputs()
    return caught.value


def types(table: pa.Table) -> dict[str, str]:
    return {field.name: str(field.type) for field in table.schema}


def test_one_bad_cell_makes_a_bad_record_and_no_column_of_text(tmp_path: Path) -> None:
    rows = [f"{i},{i / 2},n{i}" for i in range(1000)]
    rows.insert(500, "abc,notanumber,zz")
    got = read(open_source(write(tmp_path / "a.csv", "id,x,name", rows)))
    assert types(got.table) == {"id": "int64", "x": "double", "name": "string"}
    assert got.table.num_rows == 1000
    assert [each.place for each in got.bad] == ["a.csv:502"]
    assert got.bad[0].raw == b"abc,notanumber,zz\n"
    assert 'column "id"' in got.bad[0].error
    assert "invalid value 'abc'" in got.bad[0].error
    assert 'cast={"id": "string"}' in got.bad[0].error


def test_the_cast_that_a_bad_record_names_takes_the_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id", [*map(str, range(99)), "abc"])
    assert [each.place for each in read(open_source(path)).bad] == ["a.csv:101"]
    got = read(open_source(path, cast={"id": "string"}))
    assert got.table["id"].to_pylist()[-2:] == ["98", "abc"]
    assert not got.bad


@pytest.mark.parametrize(
    ("good", "odd", "kind"),
    [
        ("7", "x", "int64"),
        ("-7.5e3", "seven", "double"),
        ("2024-02-29", "2023-02-29", "date32[day]"),
        ("2024-02-29 10:00:00.5", "soon", "timestamp[ns]"),
        ("2024-02-29T10:00Z", "2024-02-29 10:00", "timestamp[s, tz=UTC]"),
        ("10:00", "noon", "time32[s]"),
        ("true", "perhaps", "bool"),
    ],
)
def test_few_misfits_leave_the_type_and_many_make_text(
    good: str, odd: str, kind: str, tmp_path: Path
) -> None:
    few = read(open_source(write(tmp_path / "few.csv", "i,x", [f"1,{good}"] * 95 + [f"1,{odd}"])))
    assert types(few.table)["x"] == kind
    assert [each.place for each in few.bad] == ["few.csv:97"]
    rows = [f"1,{good}"] * 94 + [f"1,{odd}"] * 6
    many = read(open_source(write(tmp_path / "many.csv", "i,x", rows)))
    assert types(many.table)["x"] == "string"
    assert not many.bad


def test_missing_cells_count_neither_way(tmp_path: Path) -> None:
    rows = ["1,"] * 500 + ["1,NA"] * 500 + ["1,2"] * 99 + ["1,x"]
    got = read(open_source(write(tmp_path / "a.csv", "i,x", rows)))
    assert types(got.table)["x"] == "int64"
    assert len(got.bad) == 1
    assert got.table["x"].null_count == 1000
    own = read(open_source(tmp_path / "a.csv", nulls=["", "NA", "x"]))
    assert (own.table["x"].null_count, own.bad) == (1001, [])


def test_bytes_that_are_no_text_do_not_change_a_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"x\n" + b"1\n" * 50 + b"\xff\n")
    got = read(open_source(path))
    assert types(got.table) == {"x": "int64"}
    assert [each.place for each in got.bad] == ["a.csv:52"]


def test_a_mixed_file_goes_by_the_cells_of_all_files(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "x", ["1"] * 100)
    write(tmp_path / "b.csv", "x", ["1", "2", "n"])
    got = read(open_source(tmp_path))
    assert types(got.table) == {"x": "int64"}
    assert [each.place for each in got.bad] == ["b.csv:4"]


def test_csv_files_that_disagree_are_all_told_with_both_types(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "x,t,n", ["1,2020-01-01,"] * 3)
    write(tmp_path / "b.csv", "x,t,n", ["2,2020-01-01 10:00,4"] * 3)
    write(tmp_path / "c.csv", "x,t,n", ["word,true,5"] * 3)
    write(tmp_path / "d.csv", "x,n,y", ["3,1,1"])
    error = differences(tmp_path)
    assert error.facts["differences"] == [
        '"t" is not there (in d.csv)',
        '"y" is there, but not in a.csv (in d.csv)',
        '"x" is string, not int64 (in c.csv)',
        '"t" is bool, not timestamp[s] (in c.csv)',
    ]
    assert 'cast={"x": "float64", "t": "string"}' in error.fix
    got = read(open_source(tmp_path, columns=["x"], cast={"x": "float64"}))
    assert got.table["x"].to_pylist() == [1.0] * 3 + [2.0] * 3 + [3.0]
    assert [each.place for each in got.bad] == ["c.csv:2", "c.csv:3", "c.csv:4"]


def test_json_files_that_disagree_are_all_told_with_both_types(tmp_path: Path) -> None:
    lines: dict[str, list[dict[str, Any]]] = {
        "a": [{"x": 1, "y": 1, "m": 1}, {"x": 2, "y": 1}],
        "b": [{"x": 2.5, "y": 1}],
        "c": [{"x": "word", "z": {"u": 1}}],
    }
    for name, rows in lines.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    error = differences(tmp_path)
    assert error.facts["differences"] == [
        '"x" is string, not double (in c.jsonl)',
        '"y" is not there (in c.jsonl)',
        '"z" is there, but not in a.jsonl (in c.jsonl)',
    ]
    assert 'cast={"x": "float64", "y": "int64"}' in error.fix
    got = read(open_source(tmp_path, columns=["x", "y"], cast={"x": "float64", "y": "int64"}))
    assert got.table.to_pylist() == [{"x": x, "y": 1} for x in (1.0, 2.0, 2.5)]
    assert [each.place for each in got.bad] == ["c.jsonl:1"]


def test_a_field_that_some_lines_lack_may_be_missing_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n{"x": 2, "why": "late"}\n')
    (tmp_path / "b.jsonl").write_text('{"x": 3}\n')
    got = read(open_source(tmp_path))
    assert got.table["why"].to_pylist() == [None, "late", None]
    (tmp_path / "b.jsonl").write_text('{"x": 3, "y": 4}\n')
    assert differences(tmp_path).facts["differences"] == [
        '"y" is there, but not in a.jsonl (in b.jsonl)'
    ]
    got = read(open_source(tmp_path, cast={"y": "int64"}))
    assert got.table["y"].to_pylist() == [None, None, 4]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("late", [1, 40, 63])
def test_whole_numbers_and_others_are_one_column_wherever_they_lie(
    kind: str, late: int, tmp_path: Path
) -> None:
    for i in range(64):
        x = 0.5 if i == late else i
        text = f"x\n{x}\n" if kind == "csv" else json.dumps({"x": x}) + "\n"
        (tmp_path / f"{i:02}.{kind}").write_text(text)
    got = read(open_source(tmp_path))
    assert types(got.table) == {"x": "double"}
    assert got.table["x"].to_pylist() == [0.5 if i == late else float(i) for i in range(64)]


def test_what_no_sample_has_is_a_bad_record_that_names_the_cast(tmp_path: Path) -> None:
    for i in range(65):
        (tmp_path / f"{i:02}.csv").write_text("x\n1\n")
    source: Any = open_source(tmp_path)
    looked = [each.name for each, _ in source.samples(source.files())]
    (left,) = {f"{i:02}.csv" for i in range(65)} - set(looked)
    (tmp_path / left).write_text("x\n0.5\n")
    got = read(open_source(tmp_path))
    assert types(got.table) == {"x": "int64"}
    assert [each.place for each in got.bad] == [f"{left}:2"]
    assert "0.5" in got.bad[0].error
    assert not read(open_source(tmp_path, cast={"x": "float64"})).bad
