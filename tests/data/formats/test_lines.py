"""CSV and JSON lines: any cut gives the same rows, and a bad line is told by its number."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.base.errors import BadInput
from penstock.data.formats import lines, open_source

from .examples import read

quick = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=8)


@quick
@given(
    values=st.lists(st.tuples(st.integers(-9, 9), texts), min_size=1, max_size=30),
    piece=st.integers(1, 40),
    last=st.booleans(),
)
def test_any_pieces_give_the_lines_of_the_whole(
    values: list[tuple[int, str]], piece: int, last: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    text = "\n".join(json.dumps({"i": i, "t": t}, ensure_ascii=False) for i, t in values)
    path.write_text(text + "\n" * last, newline="")
    got = read(open_source(path, piece_bytes=piece))
    assert got.table.to_pylist() == [{"i": i, "t": t} for i, t in values]
    assert not got.bad


@quick
@given(
    values=st.lists(st.tuples(texts, st.integers(0, 9)), min_size=1, max_size=30),
    chunk=st.integers(1, 60),
)
def test_quoted_values_may_hold_anything(
    values: list[tuple[str, int]], chunk: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    stream = io.StringIO(newline="")
    out = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    out.writerows([("t", "n"), *values])
    path.write_text(stream.getvalue(), newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "CHUNK", chunk)
        got = read(open_source(path, newlines_in_values=True, cast={"t": "string"}))
    assert got.table.to_pylist() == [{"t": t, "n": n} for t, n in values]


def bad_csv(tmp_path: Path, line: bytes, **options: Any) -> Any:
    rows = [b"%d,%d,text\n" % (i, i) for i in range(100)]
    rows[41] = line
    path = tmp_path / "rows.csv"
    path.write_bytes(b"id,n,t\n" + b"".join(rows))
    cast = {"id": "int64", "n": "int64"}
    return read(open_source(path, cast=cast, **options))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"41,41\n", "Expected 3 columns, got 2"),
        (b"41,41,text,more\n", "Expected 3 columns, got 4"),
        (b"41,many,text\n", "invalid value 'many'"),
        (b"41,41,te\xffxt\n", "UTF8|UTF-8"),
        (b'41,41,"open\n', "newlines_in_values=True"),
        (b'"41,41,text\n', "not closed|Expected 3 columns"),
    ],
)
@pytest.mark.parametrize("piece", [60, 1 << 20])
def test_a_bad_line_of_csv_is_told_by_its_number(
    line: bytes, said: str, piece: int, tmp_path: Path
) -> None:
    got = bad_csv(tmp_path, line, piece_bytes=piece)
    assert [each.place for each in got.bad] == ["rows.csv:43"]
    assert re.search(said, got.bad[0].error)
    assert "Row #" not in got.bad[0].error  # its own count, of a piece
    assert got.bad[0].raw == line
    assert got.table["id"].to_pylist() == [i for i in range(100) if i != 41]


@pytest.mark.parametrize(
    "line", [b"{\n", b"[1]\n", b'{"id": "x"}\n', b'{"id": 1, "new": 2}\n', b'{"t": "\xff"}\n']
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_bad_line_of_json_is_told_by_its_number(
    line: bytes, packed: bool, tmp_path: Path
) -> None:
    rows = [json.dumps({"id": i, "t": f"t{i}"}).encode() + b"\n" for i in range(30_000)]
    rows[25_000] = line
    data = b"\n" + b"".join(rows)
    path = tmp_path / ("rows.jsonl.gz" if packed else "rows.jsonl")
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "SAMPLE", 1000)
        patch.setattr(lines, "CHUNK", 1 << 16)
        got = read(open_source(path))
    assert [each.place for each in got.bad] == [f"{path.name}:25002"]
    assert got.bad[0].raw == line
    assert got.table.num_rows == 29_999
    assert got.places[-1] == f"{path.name}:30001"


def test_two_open_quotations_do_not_swallow_what_lies_between(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('id,t\n1,a\n2,"b\n3,c\n4,"d\n5,5" pipe\n6,"e')
    got = read(open_source(path))
    assert [each.place for each in got.bad] == ["rows.csv:3", "rows.csv:5", "rows.csv:7"]
    assert got.table.to_pylist() == [
        {"id": 1, "t": "a"},
        {"id": 3, "t": "c"},
        {"id": 5, "t": '5" pipe'},
    ]


def test_every_bad_line_is_found_and_every_good_one_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"a": {i}}}\n' if i % 3 else "bad\n" for i in range(900)))
    got = read(open_source(path))
    assert [int(each.place.split(":")[1]) for each in got.bad] == list(range(1, 901, 3))
    assert got.table["a"].to_pylist() == [i for i in range(900) if i % 3]


def test_types_are_inferred_once_for_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,\n2,\n")
    (tmp_path / "b.csv").write_text("y,x\n2020-01-01,1.5\n")
    source = open_source(tmp_path)
    assert source.inputs()
    got = read(source)
    assert got.table["x"].to_pylist() == [1.0, 2.0, 1.5]
    assert got.table.schema.field("y").type == pa.date32()


def test_json_text_that_looks_like_a_time_stays_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"t": "2020-01-01 00:00:00", "s": {"u": ["2020-01-01"]}}\n')
    got = read(open_source(tmp_path / "a.jsonl")).table
    assert got.schema.field("t").type == pa.string()
    assert got.to_pylist()[0]["s"] == {"u": ["2020-01-01"]}


def test_differing_headers_are_all_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "b.csv").write_text("x,z\n1,2\n")
    (tmp_path / "c.csv").write_text("")
    (tmp_path / "d.csv").write_text("x,x,y\n")
    with pytest.raises(BadInput) as caught:
        open_source(tmp_path).inputs()
    assert caught.value.facts["differences"] == [
        '"y" is not there (in b.csv)',
        '"z" is there, but not in a.csv (in b.csv)',
        "it is empty, without even a header line (in c.csv)",
        "two columns are named x (in d.csv)",
    ]


def test_a_header_that_is_no_text_names_the_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("größe,x\n1,2\n".encode("latin-1"))
    with pytest.raises(BadInput, match=r"a\.csv:1: the header is not utf-8"):
        open_source(tmp_path / "a.csv").inputs()
    got = read(open_source(tmp_path / "a.csv", encoding="latin-1"))
    assert got.table.column_names == ["größe", "x"]


def test_tabs_names_and_other_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("1\t'a\tb'\n")
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbfx\n1\n")
    got = read(open_source(tmp_path / "a.tsv", names=["n", "t"], quote_char="'"))
    assert got.table.to_pylist() == [{"n": 1, "t": "a\tb"}]
    assert read(open_source(tmp_path / "bom.csv")).table.column_names == ["x"]


def test_windows_line_ends_and_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"x,y\r\n1,2\r\n\r\n3,4\r\n")
    got = read(open_source(tmp_path / "a.csv"))
    assert got.table.to_pylist() == [{"x": 1, "y": 2}, {"x": 3, "y": 4}]
    assert got.places == ["a.csv:4"]


def test_appending_changes_no_earlier_piece(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id\n" + "".join(f"{i}\n" for i in range(1000)))
    source = open_source(path, piece_bytes=500)
    before = [source.digest(each) for each in source.inputs()]
    with path.open("a") as out:
        out.write("".join(f"{i}\n" for i in range(1000, 1100)))
    after = [source.digest(each) for each in source.inputs()]
    assert after[: len(before) - 1] == before[:-1]
    assert len(after) > len(before)


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_a_compressed_file_cut_off_names_file_and_offset(end: str, tmp_path: Path) -> None:
    data = "".join(json.dumps({"a": i, "b": str(i * i)}) + "\n" for i in range(5000)).encode()
    packed = gzip.compress(data) if end == ".gz" else pa.Codec("zstd").compress(data, asbytes=True)
    path = tmp_path / f"a.jsonl{end}"
    path.write_bytes(packed)
    assert read(open_source(path)).table.num_rows == 5000
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(BadInput, match=r"a\.jsonl\.\w+ is damaged or cut off.*near byte \d+"):
        read(open_source(path))


def test_gz_files_of_several_members_are_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n') + gzip.compress(b'{"a": 2}\n'))
    assert read(open_source(path)).table["a"].to_pylist() == [1, 2]


def test_a_file_without_line_ends_is_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LONGEST", 1 << 20)
    (tmp_path / "a.jsonl").write_bytes(b"x" * (8 << 20))
    with pytest.raises(BadInput, match="a line is longer than 1 MiB, from byte 0 on"):
        open_source(tmp_path / "a.jsonl").inputs()


def test_an_object_is_a_line_and_a_line_an_object(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a":\n2}\n{"a": 3} {"a": 4}\n\n{"a": 5}')
    got = read(open_source(tmp_path / "a.jsonl"))
    assert got.table["a"].to_pylist() == [1, 5]
    assert [each.place for each in got.bad] == ["a.jsonl:2", "a.jsonl:3", "a.jsonl:4"]


def test_a_file_of_no_objects_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('[\n{"a": 1},\n]\n')
    with pytest.raises(BadInput, match="no line of the first MiB"):
        open_source(tmp_path / "a.jsonl").inputs()


def test_columns_are_chosen_and_cast(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1, "b": 2}\n{"a": 3, "c": 4}\n')
    got = read(open_source(tmp_path / "a.jsonl", columns=["b", "a"], cast={"a": "float32"}))
    assert got.table.to_pylist() == [{"b": 2, "a": 1.0}, {"b": None, "a": 3.0}]
