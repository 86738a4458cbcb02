"""`penstock data`: what people see, what machines get, and how it ends."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from penstock import data
from penstock.base.settings import load_settings
from penstock.jobs.stores import open_stores


def rows(count=30, scale=1.0):
    chance = np.random.default_rng(0)
    for i in range(count):
        yield {
            "id": f"sample-{i:03d}",
            "image": (chance.random((8, 8)) * scale).astype(np.float32),
            "label": i % 3,
            "text": f"some words {i}",
            "at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
            "png": b"\x89PNG\r\n\x1a\n" + bytes(i),
        }


@pytest.fixture
def digits(terminal, tmp_path):
    """digits@1 and @2, the second with 5 rows more and all images changed."""
    with open_stores(load_settings()) as stores:
        for params in ({}, {"count": 35, "scale": 2.0}):
            data.prepare(
                stores, "digits", rows, params=params, key="id", splits={"train": 0.8, "test": 0.2}
            )
    return tmp_path / "home"


def test_rows_are_shown_with_large_values_summarised(digits, terminal):
    text = terminal("data", "head", "digits:test", "-n", "2")
    assert "float32[8, 8]" in text
    assert "some words" in text
    assert "png 1" in text
    assert "digits@2:test: rows 0 to 1 of" in text.splitlines()[-1]
    found = terminal.json(
        "data", "head", "digits@1", "-n", "3", "--columns", "id,at", "--start", "1"
    )
    assert (found["reference"], found["start"]) == ("digits@1:train", 1)
    assert [list(row) for row in found["rows"]] == [["id", "at"]] * 3
    assert found["rows"][0]["at"].startswith("2026-01-01T00:00:00")
    terminal("data", "head", "digits:trian", expect=3)
    assert '"train"' in terminal.err
    terminal("data", "head", "digits", "--columns", "lable", expect=3)
    assert '"label"' in terminal.err


def test_statistics_have_a_histogram_that_greps(digits, terminal):
    lines = terminal("data", "stats", "digits@1").splitlines()
    label = next(line for line in lines if line.startswith("label"))
    assert "███" in label
    assert next(line for line in lines if line.startswith("id"))
    found = terminal.json("data", "stats", "digits", "--columns", "label,image")
    assert [each["column"] for each in found] == ["label", "image"]
    assert sum(found[0]["histogram"]["counts"]) == 35
    terminal("data", "stats", "digits", "--columns", "lable", expect=3)


def test_a_difference_is_told_by_key_column_and_drift(digits, terminal):
    found = terminal.json("data", "diff", "digits@1")
    assert [found[sort] for sort in ("added", "removed", "changed", "same")] == [5, 0, 30, 0]
    assert len(found["keys"]["added"]) == 5
    text = terminal("data", "diff", "digits@1", "digits@2")
    assert "sample-034" in text
    assert "image" in text.split("drift")[1]
    assert terminal.json("data", "diff", "digits@2", "digits@2")["equal"] is True


def test_a_whole_version_is_whole_and_a_damaged_one_is_news_for_the_exit_code(digits, terminal):
    assert terminal.json("data", "verify", "digits@2")["whole"] is True
    assert "whole" in terminal("data", "verify", "digits")
    with open_stores(load_settings()) as stores:
        manifest = data.read_manifest(stores.blobs, _digest(stores, "digits@1"))
        path = stores.blobs.path(manifest.shards_of("test")[0].digest)
        content = bytearray(path.read_bytes())
        content[30] ^= 4
        path.chmod(0o644)
        path.write_bytes(content)
    found = terminal.json("data", "verify", "digits@1", expect=6)
    assert [each["where"] for each in found["damages"]] == ["test/0"]
    assert "test/0" in terminal("data", "verify", "digits@1", expect=6)
    assert terminal.json("data", "head", "digits@1:test", expect=6)["error"]["code"] == "damaged"


def test_lineage_is_a_tree(digits, terminal):
    text = terminal("data", "lineage", "digits@2")
    assert text.splitlines()[0].startswith("dataset digits@2")
    assert "└── function" in text
    assert terminal.json("data", "lineage", "digits")["sources"][0]["facts"]["key"] == "id"


def test_an_export_appears_whole_and_replaces_nothing(digits, terminal, tmp_path):
    found = terminal.json("data", "export", "digits@1", "out")
    assert Path(found["folder"]) == tmp_path / "out"
    ids = [n for file in found["files"] for n in pq.read_table(file)["id"].to_pylist()]
    assert len(ids) == len(set(ids)) == found["rows"] == 30
    terminal("data", "export", "digits@1", "out", expect=4)
    terminal("data", "export", "digits", "csv", "--format", "csv", expect=2)
    assert '"image"' in terminal.err
    text = terminal(
        "data", "export", "digits:test", "csv", "--format", "csv", "--columns", "id,label"
    )
    assert "1 file," in text


def test_an_alias_moves_by_compare_and_swap(digits, terminal):
    assert terminal.json("data", "alias", "digits@1", "stable")["version"] == 1
    terminal("data", "alias", "digits@2", "stable", "--expect", "0", expect=4)
    assert "digits@stable is digits@2" in terminal("data", "alias", "digits@2", "stable")
    assert terminal.json("data", "show", "digits@stable")["version"]["version"] == 2


def test_tags_show_in_lists_and_hold_a_version(digits, terminal):
    assert terminal("data", "tag", "digits@1", "gold", "two words").strip() == "gold, two words"
    assert '"gold"' in terminal("data", "list")
    assert terminal.json("data", "tag", "digits@1", "gold", "--remove")["tags"] == ["two words"]
    assert "no tags" in terminal("data", "tag", "digits@2")
    found = terminal.json("data", "gc", "--keep", "0", "--dry-run")
    assert 'tag "two words"' in found["versions"]["kept"]["digits@1"]
    assert "would drop nothing" in terminal("data", "gc", "--dry-run")


def _digest(stores, reference):
    with stores.meta.read() as meta:
        return meta.get_version("dataset", reference).digest


SCRIPT = """
import sys
import penstock as ps
from penstock.data import Join

def double(row):
    return {**row, "x": 2 * row["x"]}

def main():
    print("the script's own output")
    options = {"key": "id", "splits": {"all": 1}, "workers": 0}
    raw = ps.prepare("raw", sys.argv[1], **options)
    ps.prepare("twice", "raw:all", map=double, **options)
    ps.prepare("both", f"{raw.reference}:all", join=Join("twice", on="id"), **options)
    ps.train(main, name="never")

if __name__ == "__main__":
    ps.main(main)
"""


@pytest.fixture
def files(terminal, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for n in range(3):
        lines = [f'{{"id": "{n}-{i}", "x": {i}, "group": "g{i % 4}"}}' for i in range(20)]
        (folder / f"{n}.jsonl").write_text("\n".join(lines))
    (tmp_path / "script.py").write_text(SCRIPT)
    return folder


def test_files_become_a_version_and_only_changes_are_read_again(files, terminal):
    wish = ("data", "import", "raw", "files/*.jsonl", "--key", "id", "--splits", "a=0.5,b=0.5")
    first = terminal.json(*wish, "--by", "group", "--columns", "id,x,group")
    assert (first["reference"], first["reused"], first["rows"]) == ("raw@1", False, 60)
    assert set(first["splits"]) == {"a", "b"}
    assert terminal.json(*wish, "--by", "group", "--columns", "id,x,group")["reused"] is True
    groups = [
        {row["group"] for row in terminal.json("data", "head", f"raw:{s}", "-n", "60")["rows"]}
        for s in ("a", "b")
    ]
    assert not groups[0] & groups[1]
    (files / "3.jsonl").write_text('{"id": "new", "x": 1, "group": "g0"}\n{broken\n')
    error = terminal.json(*wish, expect=2)["error"]
    assert "3.jsonl:2" in error["what"]
    assert "--bad skip" in error["fix"]
    text = terminal(*wish, "--bad", "skip", "--bad-share", "0.5")
    assert "raw@2: 61 rows" in text
    assert "3.jsonl:2" in text


def test_a_column_is_imported_as_the_type_that_is_said(files, terminal):
    wish = ("data", "import", "raw", "files/*.jsonl", "--splits", "all=1")
    (files / "3.jsonl").write_text('{"id": "new", "x": "many", "group": "g0"}\n')
    assert "--cast x=float64" in terminal.json(*wish, expect=2)["error"]["fix"]
    more = ("--cast", "x=float64", "--bad", "skip", "--bad-share", "0.5")
    assert terminal.json(*wish, *more)["rows"] == 60
    assert isinstance(terminal.json("data", "head", "raw", "-n", "1")["rows"][0]["x"], float)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("nowhere/*.csv",), 2, "nowhere"),
        (("files", "--key", "idd"), 2, '"id"'),
        (("files", "--format", "cvs"), 2, '"csv"'),
        (("files", "--cast", "float64"), 2, "--cast x=float64"),
        (("files", "--cast", "x=flaot"), 2, '"flaot" is not the name'),
        (("files", "--splits", "a=b"), 2, "train=0.9"),
        (("files", "--splits", "a=0.5"), 2, "add up"),
        (("files", "--bad", "hope"), 2, "quarantine"),
    ],
)
def test_an_import_that_cannot_be_meant_is_one_error(files, terminal, arguments, code, says):
    terminal("data", "import", "raw", *arguments, expect=code)
    assert says in terminal.err
    assert terminal.json("data", "list") == []


def test_a_script_tells_what_it_would_prepare_and_prepares_nothing(files, terminal):
    ask = ("data", "explain", "script.py", "files/*.jsonl")
    raw, twice, both = terminal.json(*ask)
    assert (raw["name"], raw["newest"], raw["to_run"]) == ("raw", None, 1)
    assert twice["why"] == both["why"] == "would run, because raw would be made first"
    assert terminal.json("data", "list") == []
    terminal("data", "import", "raw", "files/*.jsonl", "--key", "id", "--splits", "all=1")
    (files / "1.jsonl").write_text('{"id": "x", "x": 1, "group": "g"}')
    text = terminal(*ask, "--name", "raw")
    assert "1 of 3 inputs changed (1.jsonl)" in text
    assert "twice" not in text
    assert [each["version"]["version"] for each in terminal.json("data", "list", "raw")] == [1]
    assert terminal.json("runs", "list", "never") == []


def test_what_cannot_be_explained_is_one_error(files, terminal, tmp_path):
    terminal("data", "explain", "nowhere.py", expect=2)
    terminal("data", "explain", "script.py", "--name", "rwa", "files", expect=3)
    assert "raw" in terminal.err
    (tmp_path / "empty.py").write_text("print('nothing')")
    terminal("data", "explain", "empty.py", expect=2)
    assert "without a call of ps.prepare" in terminal.err
    (tmp_path / "broken.py").write_text("1 / 0")
    assert terminal.json("data", "explain", "broken.py", expect=8)["error"]["code"] == "user-code"
