"""Steps over all rows: the same rows in the same order, whatever the units were."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.errors import BadInput, DiskFull, Unavailable
from penstock.blobs import open_blobs
from penstock.data.keys import key_hashes
from penstock.data.preparation import Join, storing, whole
from penstock.data.preparation.database import database
from penstock.data.preparation.keyruns import Run, groups, put_run

Lines = Callable[[str, list[Any]], Path]
ALL = {"splits": {"all": 1}}


def ids(project: Any, made: Any) -> list[Any]:
    return [row["id"] for row in project.all_rows(made)]


@pytest.mark.usefixtures("a_file_a_unit")
def test_the_first_of_equal_rows_stays(project: Any) -> None:
    for name in "abc":
        rows = "".join(f"{i},{i // 2}\n" for i in range(ord(name) - 97, 40, 2))
        (project.raw / f"{name}.csv").write_text("id,x\n" + rows)
    assert ids(project, project.prepare(dedupe="key", **ALL)) == [
        *range(0, 40, 2), *range(1, 40, 2)
    ]  # fmt: skip
    assert ids(project, project.prepare(dedupe="content", **ALL)) == [
        *range(0, 40, 2), *range(1, 40, 2)
    ]  # fmt: skip
    assert ids(project, project.prepare(dedupe="x", **ALL)) == [*range(0, 40, 2)]
    made = project.prepare(dedupe="x", splits={"train": 0.5, "test": 0.5})
    assert sorted(ids(project, made)) == [*range(0, 40, 2)]
    assert project.manifest(made).statistics["x"].rows == 20


@pytest.mark.usefixtures("a_file_a_unit")
def test_sorted_rows_are_in_order_in_every_split(project: Any, jsonl: Lines) -> None:
    chance = random.Random(1)
    rows = [
        {"id": i, "a": chance.choice([None, 1, 2, 3]), "b": chance.random()} for i in range(300)
    ]
    made = project.prepare(sources=jsonl("raw.jsonl", rows), sort=["a", "-b"])
    for found in project.rows(made).values():
        wanted = sorted(found, key=lambda row: (row["a"] is None, row["a"] or 0, -row["b"]))
        assert found == wanted
    assert len(project.all_rows(made)) == 300


@pytest.mark.usefixtures("a_file_a_unit")
def test_a_shuffle_is_one_order_whatever_the_units(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.files()
    first = ids(project, project.prepare(shuffle=True, **ALL))
    assert sorted(first) == list(range(200))
    assert first != list(range(200))
    assert ids(project, project.prepare(shuffle=7, **ALL)) != first
    monkeypatch.setattr("penstock.data.preparation.cutting.UNIT_BYTES", 4 << 20)
    monkeypatch.setattr(storing, "SHARD_ROWS", 16)
    assert ids(project, project.prepare(shuffle=True, fresh=True, **ALL)) == first


@pytest.mark.usefixtures("a_file_a_unit")
def test_content_has_the_digest_of_its_rows_whatever_the_shards(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.files()
    found = []
    for rows in (1 << 18, 64, 1):
        monkeypatch.setattr(storing, "SHARD_ROWS", rows)
        made = project.prepare(fresh=True, **ALL)
        data = project.manifest(made)
        found.append((data.splits["all"].digest, data.statistics, len(data.shards)))
    assert [shards for *_, shards in found] == [1, 4, 200]
    assert len({digest for digest, *_ in found}) == 1
    assert len({repr(statistics["x"].distinct) for _, statistics, _ in found}) == 1


@pytest.mark.usefixtures("a_file_a_unit")
def test_a_join_adds_the_columns_of_one_row(project: Any, jsonl: Lines) -> None:
    project.files(5)
    labels = jsonl("labels.jsonl", [{"key": i, "label": f"l{i}", "x": -i} for i in range(0, 60, 2)])
    made = project.prepare(join=Join(str(labels), on={"id": "key"}), **ALL)
    rows = project.all_rows(made)
    assert [row["id"] for row in rows] == list(range(0, 50, 2))
    assert all(row["label"] == f"l{row['id']}" and row["x_right"] == -row["id"] for row in rows)
    made = project.prepare(join=Join(str(labels), on={"id": "key"}, how="left"), shuffle=3, **ALL)
    rows = project.all_rows(made)
    assert sorted(row["id"] for row in rows) == list(range(50))
    assert all((row["label"] is None) == row["id"] % 2 for row in rows)
    assert project.prepare(
        join=Join(str(labels), on={"id": "key"}, how="left"), shuffle=3, **ALL
    ).reused
    jsonl("labels.jsonl", [{"key": i, "label": "new", "x": 0} for i in range(0, 60, 2)])
    made = project.prepare(join=Join(str(labels), on={"id": "key"}), **ALL)
    assert {row["label"] for row in project.all_rows(made)} == {"new"}
    assert project.ran() == 0


@pytest.mark.usefixtures("a_file_a_unit")
def test_bad_records_of_what_is_joined_are_left_out_where_bad_says_so(
    project: Any, jsonl: Lines
) -> None:
    project.files(1)
    rows: list[Any] = [{"id": i, "word": f"w{i}"} for i in range(10)]
    rows[4] = '{"id": 4, "word": '
    join = Join(str(jsonl("labels.jsonl", rows)), on="id")
    with pytest.raises(BadInput, match=r"labels.jsonl:5 cannot be read"):
        project.prepare(join=join, **ALL)
    with pytest.raises(BadInput, match=r"1 of 10 records are bad"):
        project.prepare(join=join, bad="skip", **ALL)
    made = project.prepare(join=join, bad="quarantine", **ALL)
    assert [row["id"] for row in project.all_rows(made)] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert project.manifest(made).notes["quarantine"]["rows"] == 1
    assert made.notes[0].startswith("1 of 10 records are bad and were put aside: labels.jsonl:5")


def test_a_join_with_several_matches_is_refused_with_the_values(project: Any, jsonl: Lines) -> None:
    project.files(5)
    labels = jsonl("labels.jsonl", [{"id": i // 2, "label": "l"} for i in range(4)])
    with pytest.raises(BadInput, match=r"several rows of .* match one of ours: 0, 1"):
        project.prepare(join=(str(labels), "id"))
    with pytest.raises(BadInput, match='names a column "idd"'):
        project.prepare(join=(str(labels), "idd"))
    assert project.versions() == []


def a_few(rows: int = 20_000) -> Iterator[tuple[pa.Table, Any]]:
    numbers = np.arange(rows)
    yield pa.table({"a": np.random.default_rng(0).random(rows)}), numbers


@pytest.mark.faults
def test_a_disk_without_room_for_sorting_is_said_and_nothing_is_left(small_disk: Path) -> None:
    with pytest.raises(DiskFull, match=r"no room left for sorting .*") as caught:
        whole.sorted_rows(a_few(), [False], small_disk / "tmp")
    assert "PENSTOCK_HOME" in caught.value.fix
    assert list((small_disk / "tmp").iterdir()) == []
    (small_disk / "tmp").rmdir()
    (small_disk / "tmp").write_text("no folder")
    with pytest.raises(Unavailable, match="sorting or joining rows in"):
        whole.sorted_rows(a_few(10), [False], small_disk / "tmp")


@pytest.mark.faults
def test_what_a_killed_sort_left_goes_with_the_next(
    tmp_path: Path, in_child: Callable[..., int]
) -> None:
    def killed() -> Iterator[Any]:
        yield from a_few(10)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(lambda: whole.sorted_rows(killed(), [False], tmp_path)) != 0
    assert len(list(tmp_path.iterdir())) == 1
    with database(tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
        assert len(whole.sorted_rows(a_few(10), [False], tmp_path)) == 10
        assert len(list(tmp_path.iterdir())) == 1, "whoever is at work keeps what it has"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("a_file_a_unit")
def test_a_join_of_what_cannot_be_compared_is_refused(project: Any, jsonl: Lines) -> None:
    project.files(2)
    labels = jsonl("labels.jsonl", [{"id": name, "label": "l"} for name in "ab"])
    with pytest.raises(BadInput, match="the columns of a join cannot be compared") as caught:
        project.prepare(join=(str(labels), "id"))
    assert "same type" in caught.value.fix
    assert project.versions() == []


keys = st.lists(st.lists(st.integers(0, 30).map(str), max_size=30), min_size=1, max_size=6)


@given(units=keys)
def test_runs_find_every_key_that_comes_twice(units: list[list[str]]) -> None:
    blobs = open_blobs("memory://")
    runs, start = [], 0
    for unit in units:
        runs.append(Run(blobs, put_run(blobs, key_hashes(unit)), len(unit), start))
        start += len(unit)
    flat = [key for unit in units for key in unit]
    wanted = {tuple(np.flatnonzero(np.array(flat) == key)) for key in set(flat)}
    found = {tuple(each) for part in groups(runs, start) for each in part}
    assert found == {each for each in wanted if len(each) > 1}
