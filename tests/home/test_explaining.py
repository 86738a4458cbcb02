"""What a script is told and given while it explains: plans, and stand-ins of what would be made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import penstock as ps
from penstock.data import Join
from penstock.home import explaining

HOW: dict[str, Any] = {"key": "id", "splits": {"all": 1}, "workers": 0}
Explain = Callable[..., list[dict[str, Any]]]


def write(name: str, value: int = 0) -> None:
    Path(f"{name}.jsonl").write_text(f'{{"id": 1, "x": {value}}}\n{{"id": 2, "x": 2}}\n')


@pytest.fixture
def explain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Explain:
    """`explain(script)`: the plans that this function tells when it is run as a script."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_HOME", str(tmp_path / "home"))
    write("raw")
    write("other")

    def run(script: Callable[[], Any]) -> list[dict[str, Any]]:
        told = tmp_path / "plans"
        told.unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            patch.setenv(explaining.VARIABLE, str(told))
            patch.setattr(explaining, "_stands", {})
            script()
        return [json.loads(line) for line in told.read_text().splitlines()]

    return run


def chain() -> None:
    raw = ps.prepare("raw", "raw.jsonl", **HOW)
    ps.prepare("more", f"{raw.reference}:all", **HOW)
    ps.prepare("joined", "other.jsonl", join=Join("raw:all", on="id"), **HOW)
    ps.prepare("last", "joined", **HOW)


def whys(plans: list[dict[str, Any]]) -> list[str]:
    return [f"{each['name']}: {each['why']}" for each in plans]


def test_whatever_reads_what_would_be_made_would_run_too(explain: Explain) -> None:
    first = "would run, because raw would be made first"
    assert whys(explain(chain)) == [
        "raw: raw has no version yet", f"more: {first}", f"joined: {first}",
        "last: would run, because joined would be made first",
    ]  # fmt: skip
    chain()
    assert [each["reused"] for each in explain(chain)] == [True] * 4
    write("raw", 7)
    anew = "would run, because raw would be made anew first"
    assert whys(explain(chain)) == [
        "raw: 1 of 1 inputs changed (raw.jsonl)", f"more: {anew}", f"joined: {anew}",
        "last: would run, because joined would be made anew first",
    ]  # fmt: skip


def two(named: str) -> None:
    ps.prepare("raw", "raw.jsonl", **HOW)
    ps.prepare("more", named, **HOW)


def test_units_of_what_reads_a_version_that_is_there_are_counted(explain: Explain) -> None:
    ps.prepare("raw", "raw.jsonl", **HOW)
    raw, more, joined, last = explain(chain)
    assert (raw["reused"], raw["newest"], raw["known_as"]) == (True, "raw@1", "raw@1")
    assert [(p["reused"], p["newest"], p["to_run"]) for p in (more, joined)] == [
        (False, None, 1), (False, None, 1)
    ]  # fmt: skip
    assert last["why"] == "would run, because joined would be made first"


def test_what_names_a_version_that_stays_is_not_concerned(explain: Explain) -> None:
    two("raw@1:all")
    write("raw", 7)
    assert [each["reused"] for each in explain(lambda: two("raw@1:all"))] == [False, True]


def test_a_source_that_goes_back_to_earlier_rows_is_known_by_them(explain: Explain) -> None:
    two("raw:all")
    write("raw", 7)
    two("raw:all")
    write("raw")
    raw, more = explain(lambda: two("raw:all"))
    assert (raw["reused"], raw["known_as"], raw["newest"]) == (True, "raw@1", "raw@2")
    assert (more["reused"], more["known_as"], more["newest"]) == (True, "more@1", "more@2")


def test_bad_records_that_would_be_put_aside_are_waited_for_too(explain: Explain) -> None:
    def script() -> None:
        ps.prepare("raw", "raw.jsonl", bad="quarantine", **HOW)
        ps.prepare("worst", "raw-quarantine", **HOW)

    assert whys(explain(script))[1] == (
        "worst: would run, because raw-quarantine would be made first"
    )


def test_a_script_ends_where_it_opens_what_is_not_there(explain: Explain) -> None:
    def script() -> None:
        raw = ps.prepare("raw", "raw.jsonl", **HOW)
        rows = len(ps.open(f"{raw.reference}:all"))
        ps.prepare("more", "raw", params={"rows": rows}, map=lambda row, rows: row, **HOW)

    with pytest.raises(SystemExit):
        explain(script)
    script()
    write("raw", 7)
    assert len(explain(script)) == 2, "there is an older one, which tells more than nothing"


def test_other_verbs_end_it(explain: Explain) -> None:
    with pytest.raises(SystemExit):
        explain(lambda: ps.train(chain, name="never"))
    assert ps.connect().runs() == []
