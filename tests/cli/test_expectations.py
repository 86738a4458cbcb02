"""Expectations on the command line: inferred, edited, held against a version, asked of files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock import data
from penstock.base.settings import load_settings
from penstock.data.expectations import Expectations, load
from penstock.jobs.stores import open_stores


def rows(count=40, off=0):
    for i in range(count):
        yield {"id": f"t{i:02}", "label": i % 3 if i or not off else 9, "x": float(i)}


@pytest.fixture
def things(terminal):
    """things@1, and @2 with a label that was not there before."""
    options = {"key": "id", "splits": {"train": 0.7, "test": 0.3}}
    with open_stores(load_settings()) as stores:
        data.prepare(stores, "things", rows, **options)
        data.prepare(stores, "things", rows, params={"off": 1}, **options)
        yield stores


def test_a_version_meets_what_is_inferred_from_it_and_another_is_told_where_it_does_not(
    things, terminal, tmp_path
):
    assert "things.toml has" in terminal("data", "expect", "things@1", "--out", "things.toml")
    expected = load(tmp_path / "things.toml")
    assert expected.about == "things@1"
    found = terminal.json("data", "check", "things@1", "things.toml")
    assert (found["violations"], found["refused"], found["rows"]) == ([], False, 40)
    assert found["rules"] == len(expected)
    found = terminal.json("data", "check", "things", "things.toml", expect=5)
    (told,) = [each for each in found["violations"] if each["severity"] == "refuse"]
    assert told["expectation"] == "columns.label.categories"
    assert (told["rows"][0][2], told["samples"], told["count"]) == ("t00", [9], 1)
    text = terminal("data", "check", "things@2", "things.toml", expect=5)
    assert "refused" in text.splitlines()[0]
    assert "(t00)  9" in text


def test_warnings_are_told_and_are_no_failure(things, terminal, tmp_path):
    softer = '[columns.x]\nrange = { least = 0, most = 35, severity = "warn" }\n'
    (tmp_path / "x.toml").write_text(softer)
    text = terminal("data", "check", "things", "x.toml")
    assert "warn  columns.x.range" in text
    assert "in 4 of 40 rows" in text


def test_what_is_printed_is_the_file_and_a_file_is_not_replaced_unasked(things, terminal, tmp_path):
    printed = terminal("data", "expect", "things")
    out = tmp_path / "things.toml"
    terminal("data", "expect", "things", "--out", str(out))
    assert out.read_text() == printed == terminal.json("data", "expect", "things")["toml"]
    out.write_text("# edited\n")
    terminal("data", "expect", "things@1", "--out", str(out), expect=4)
    assert "--force" in terminal.err
    assert out.read_text() == "# edited\n"
    terminal("data", "expect", "things@1", "--out", str(out), "--force")
    assert "things@1" in out.read_text()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["home", "things.toml"]


def test_a_file_that_is_missing_names_the_command_that_makes_it(things, terminal):
    terminal("data", "check", "things", "no.toml", expect=3)
    assert "penstock data expect NAME --out no.toml" in terminal.err


def test_a_file_cannot_be_written_where_there_is_no_folder(things, terminal):
    terminal("data", "expect", "things", "--out", "nowhere/things.toml", expect=2)
    assert "there is no folder nowhere" in terminal.err
    terminal("data", "expect", "things", "--out", ".", "--force", expect=2)


def test_an_import_that_does_not_meet_its_expectations_makes_no_version(terminal, tmp_path):
    def table(label: int) -> None:
        labels = [i % 3 for i in range(39)] + [label]
        names = [f"t{i:02}" for i in range(40)]
        pq.write_table(pa.table({"id": names, "label": labels}), tmp_path / "raw.parquet")

    def imported(*more: str, expect: int = 0) -> None:
        terminal("data", "import", "raw", "raw.parquet", "--key", "id", *more, expect=expect)

    table(0)
    imported()
    terminal("data", "expect", "raw", "--out", "raw.toml")
    table(7)
    imported("--expect", "raw.toml", expect=5)
    assert "columns.label.categories" in terminal.err
    assert len(terminal.json("data", "list", "raw")) == 1
    table(1)
    imported("--expect", "raw.toml")
    assert len(terminal.json("data", "list", "raw")) == 2


def test_a_dataset_tells_and_checks_expectations_of_all_its_splits(things, tmp_path):
    first = data.open_dataset(things, "things@1:train")
    expected = first.expectations()
    assert isinstance(expected, Expectations)
    assert expected.about == "things@1"
    assert first.check(expected) == []
    Path(tmp_path / "things.toml").write_text(expected.to_toml())
    later = data.open_dataset(things, "things@2:test").select(["x"], 0, 2)
    (found,) = [each for each in later.check("things.toml") if each.severity == "refuse"]
    assert found.rows[0].key == "t00"
