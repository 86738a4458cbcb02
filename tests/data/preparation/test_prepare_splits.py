"""A split is a function of the row: appending moves none, and groups stay together."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.errors import BadInput
from penstock.data.preparation import ByTime, prepare
from penstock.data.preparation.splitting import assign, found_names, rule_of
from penstock.data.types import Episode

Lines = Callable[[str, list[Any]], Path]
SPLITS = {"train": 0.6, "test": 0.4}


def members(project: Any, made: Any) -> dict[str, set[Any]]:
    return {split: {row["id"] for row in rows} for split, rows in project.rows(made).items()}


@pytest.mark.usefixtures("a_file_a_unit")
def test_appending_rows_moves_none(project: Any) -> None:
    project.files(10)
    before = members(project, project.prepare(splits=SPLITS))
    for number in range(10, 20):
        project.write(number)
    after = members(project, project.prepare(splits=SPLITS))
    assert all(before[split] <= after[split] for split in SPLITS)
    assert sum(map(len, after.values())) == 200


episodes = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=60)


@given(first=episodes, more=episodes)
def test_no_group_is_in_two_splits_whatever_comes_later(first: list[str], more: list[str]) -> None:
    rule = rule_of(SPLITS, "episode")

    def split(rows: list[str]) -> list[int]:
        table = pa.table({"episode": rows})
        found = assign(rule, table, [str(i) for i in range(len(rows))], rule.names)
        return [int(each) for each in found]

    whole = split(first + more)
    assert whole[: len(first)] == split(first)
    assert len({*zip(first + more, whole, strict=True)}) == len({*first, *more})


def test_rows_of_an_episode_stay_together_because_of_its_type(project: Any, jsonl: Lines) -> None:
    rows = [{"id": i, "run": f"run-{i // 7}"} for i in range(210)]
    file = jsonl("raw.jsonl", rows)
    for options in ({"by": "run"}, {"types": {"run": Episode()}}):
        made = project.prepare(sources=file, splits=SPLITS, **options)
        runs = [{row["run"] for row in found} for found in project.rows(made).values()]
        assert not runs[0] & runs[1]
        assert len(runs[0] | runs[1]) == 30


def test_time_cuts_where_it_is_told(project: Any, jsonl: Lines) -> None:
    start = datetime.datetime(2024, 1, 1)
    rows = [{"id": i, "at": (start + datetime.timedelta(days=i)).isoformat()} for i in range(100)]
    file = {"given": str(jsonl("raw.jsonl", rows)), "cast": {"at": "timestamp[us]"}}
    until = {"train": "2024-02-01", "test": datetime.date(2024, 3, 1), "new": None}
    made = prepare(project.stores, "data", file, key="id", workers=0, splits=ByTime("at", until))
    found = members(project, made)
    assert found == {"train": {*range(31)}, "test": {*range(31, 60)}, "new": {*range(60, 100)}}
    made = project.prepare(
        sources=jsonl("raw.jsonl", rows), splits=ByTime("id", {"a": 30, "b": None})
    )
    assert members(project, made) == {"a": {*range(30)}, "b": {*range(30, 100)}}


def test_a_column_says_the_split(project: Any, jsonl: Lines) -> None:
    rows = [{"id": i, "fold": ["train", "val"][i % 3 == 0]} for i in range(30)]
    made = project.prepare(sources=jsonl("raw.jsonl", rows), splits="fold")
    assert members(project, made)["val"] == {*range(0, 30, 3)}
    assert project.manifest(made).splits["val"].share == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("splits", "by", "what"),
    [
        (ByTime("at", {"train": "2024-02-01"}), None, "do not cut time"),
        (ByTime("at", {"train": None, "test": "2024-02-01"}), None, "do not cut time"),
        ("fold", "run", "goes with shares"),
        ({"a b": 1.0}, None, "name of a split"),
    ],
)
def test_what_cuts_nothing_is_refused(splits: Any, by: Any, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        rule_of(splits, by)


def test_values_that_cannot_decide_are_refused() -> None:
    rule = rule_of("fold", None)
    with pytest.raises(BadInput, match="names no split"):
        found_names(rule, pa.table({"fold": ["train", None]}))
    with pytest.raises(BadInput, match="name of a split"):
        found_names(rule, pa.table({"fold": ["a b"]}))
    timed = rule_of(ByTime("at", {"a": "soon", "b": None}), None)
    with pytest.raises(BadInput, match="cannot be compared"):
        assign(timed, pa.table({"at": [1.0]}), ["0"], timed.names)
    with pytest.raises(BadInput, match="no value"):
        assign(timed, pa.table({"at": pa.array([None], pa.float64())}), ["0"], timed.names)
