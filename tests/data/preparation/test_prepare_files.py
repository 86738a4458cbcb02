"""Files through steps: the same rows whatever the workers, and only what changed runs again."""

from __future__ import annotations

import threading
from typing import Any

import pyarrow as pa
import pytest

from penstock.base.errors import BadInput, CannotTravel, NotFound, UserCodeFailed
from penstock.data.preparation import ByTime, Step, explain, prepare, storing

pytestmark = pytest.mark.usefixtures("a_file_a_unit")


def ids(rows: list[dict[str, Any]]) -> list[Any]:
    return sorted(row["id"] for row in rows)


@pytest.mark.faults
def test_the_same_version_with_any_number_of_workers(project: Any) -> None:
    project.files()
    made = [
        project.prepare(map=project.steps.double, workers=workers, fresh=True)
        for workers in (0, 1, 3)
    ]
    assert {each.version.digest for each in made} == {made[0].version.digest}
    assert ids(project.all_rows(made[0])) == list(range(200))
    assert project.versions() == ["data@1"]


def test_rows_keep_the_order_of_their_inputs(project: Any) -> None:
    project.files()
    made = project.prepare(splits={"all": 1})
    assert [row["id"] for row in project.rows(made)["all"]] == list(range(200))
    assert project.manifest(made).key == "id"


def test_steps_of_every_kind(project: Any) -> None:
    project.files(4)
    steps = project.steps
    assert ids(project.all_rows(project.prepare(filter=steps.even))) == list(range(0, 40, 2))
    made = project.prepare(flat_map=steps.twice)
    assert len(project.all_rows(made)) == 80
    row = min(project.all_rows(project.prepare(batch=steps.sums)), key=lambda row: row["id"])
    assert row == {"id": 0, "total": 0.0}
    made = project.prepare(steps=[("filter", steps.even), steps.double, Step("map", steps.half)])
    assert ids(project.all_rows(made)) == list(range(0, 40, 2))
    assert all(row["z"] == row["y"] / 2 for row in project.all_rows(made))


def test_the_same_call_runs_nothing(project: Any) -> None:
    project.files()
    project.prepare(map=project.steps.double)
    assert project.ran() == 20
    again = project.prepare(map=project.steps.double)
    assert (again.reused, project.progress) == (True, [])
    assert again.why == "reused data@1, because steps, parameters and inputs are unchanged"


def test_only_units_of_changed_and_new_inputs_run(project: Any) -> None:
    project.files()
    project.prepare(map=project.steps.double)
    project.write(7, shift=1.0)
    made = project.prepare(map=project.steps.double)
    assert project.ran() == 1
    assert made.why == "running, because 1 of 20 inputs changed (part-007.csv)"
    project.write(20)
    project.write(3).unlink()
    made = project.prepare(map=project.steps.double)
    assert project.ran() == 1
    assert made.why == (
        "running, because 1 input is new (part-020.csv), 1 input is gone (part-003.csv)"
    )
    assert ids(project.all_rows(made)) == sorted({*range(210)} - {*range(30, 40)})


def test_a_touched_file_is_read_and_its_unit_is_not_run(project: Any) -> None:
    project.files()
    project.prepare(map=project.steps.double)
    (project.raw / "part-004.csv").touch()
    assert project.prepare(map=project.steps.double).reused


def test_a_change_of_the_last_step_does_not_run_the_first(project: Any) -> None:
    steps, log = project.steps, str(project.folder / "log")
    project.files(5)
    told = {"params": {"log": log, "scale": 2}}
    project.prepare(steps=[steps.told, steps.double, steps.half], **told)
    first = (project.folder / "log").read_text()
    made = project.prepare(steps=[steps.told, steps.double, steps.half],
                           params={"log": log, "scale": 4})  # fmt: skip
    assert project.ran() == 5
    assert (project.folder / "log").read_text() == first
    assert made.why == "running, because parameter scale changed from 2 to 4"
    assert all(row["z"] == row["y"] / 4 for row in project.all_rows(made))


def test_a_change_of_code_is_named_and_runs_all_units(project: Any) -> None:
    project.files(5)
    project.prepare(map=project.steps.double)
    text = (project.code / "project_steps.py").read_text()
    project.write_steps(text.replace("2 * row", "3 * row"))
    made = project.prepare(map=project.steps.double)
    assert project.ran() == 5
    assert made.why == "running, because project_steps.double changed"


def test_unchanged_shards_are_not_written_again(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "SHARD_ROWS", 16)
    project.files()
    first = project.prepare(map=project.steps.double, splits={"all": 1})
    project.write(7, shift=1.0)
    second = project.prepare(map=project.steps.double, splits={"all": 1})
    old, new = (project.manifest(each).shards.digests() for each in (first, second))
    assert [n for n in range(13) if old[n] != new[n]] == [4]
    assert [each.rows for each in project.manifest(second).shards] == [16] * 12 + [8]


def test_a_version_is_a_source_and_is_named_as_such(project: Any) -> None:
    project.files(5)
    raw = project.prepare(name="raw", splits={"some": 0.5, "rest": 0.5})
    made = project.prepare(sources="raw@1:some", map=project.steps.double, splits={"all": 1})
    assert len(project.all_rows(made)) == raw.version.summary["splits"]["some"]
    assert made.version.summary["sources"] == ["raw@1"]
    whole = project.prepare(sources="raw", map=project.steps.double, splits={"all": 1})
    assert ids(project.all_rows(whole)) == list(range(50))
    with pytest.raises(NotFound, match="no split"):
        project.prepare(sources="raw@1:sme", map=project.steps.double)


def test_of_a_source_that_grew_only_new_shards_are_read(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "SHARD_ROWS", 16)
    options = {"map": project.steps.double, "splits": {"all": 1}}
    project.files(8)
    project.prepare(name="rows", splits={"all": 1})
    project.prepare(sources="rows", **options)
    assert project.ran() == 5
    project.write(8)
    project.prepare(name="rows", splits={"all": 1})
    made = project.prepare(sources="rows", **options)
    assert project.ran() == 1
    assert made.why == "running, because 1 input is new (rows:all 80)"
    assert made.version.summary["sources"] == ["rows@2"]
    assert ids(project.all_rows(made)) == list(range(90))


def test_a_functions_rows_go_through_steps_and_it_runs_once(project: Any) -> None:
    steps = project.steps
    told = {"log": str(project.folder / "log")}
    made = prepare(
        project.stores, "data", steps.numbers, map=steps.double, key="id", workers=0, params=told
    )
    again = prepare(
        project.stores, "data", steps.numbers, filter=steps.even, key="id", workers=0, params=told
    )
    assert (len(project.all_rows(made)), len(project.all_rows(again))) == (50, 25)
    assert (project.folder / "log").read_text() == "called\n" * 2, "a second time for 3 rows"


def test_explain_says_what_would_run_and_runs_nothing(project: Any) -> None:
    project.files()

    def plan(**options: Any) -> Any:
        options |= {"key": "id", "map": project.steps.double}
        return explain(project.stores, "data", str(project.raw), **options)

    found = plan()
    assert (found.units, found.known, found.to_run, found.reused) == (20, 0, 20, False)
    assert found.lines()[0] == "would run, because data has no version yet"
    assert project.versions() == []
    project.prepare(map=project.steps.double)
    assert plan().reused
    project.write(7, shift=1.0)
    found = plan()
    assert (found.units, found.known, found.inputs.changed) == (20, 19, ("part-007.csv",))
    assert found.lines() == [
        "would run, because 1 of 20 inputs changed (part-007.csv)",
        "1 of 20 units would run, 19 are known",
        "  1 from the beginning",
        "  part-007.csv",
    ]
    assert plan(fresh=True).to_run == 20


def test_gaps_of_a_unit_take_the_type_that_others_tell(project: Any) -> None:
    project.files()
    made = project.prepare(map=project.steps.rare, splits={"all": 1})
    data = project.manifest(made)
    assert [str(data.schema[each]) for each in ("note", "words")] == ["string", "list of int32"]
    rows = project.rows(made)["all"]
    assert [row["note"] for row in rows] == [None] * 151 + ["late"] * 49
    assert [len(row["words"]) for row in rows] == [i % 2 + (i > 100) for i in range(200)]
    one = project.prepare(map=project.steps.rare, splits={"all": 1}, fresh=True, name="other")
    assert project.rows(one)["all"] == rows


def test_units_that_differ_are_listed_with_their_files(project: Any) -> None:
    (project.raw / "a.csv").write_text("id,x\n1,2\n")
    (project.raw / "b.csv").write_text("id,x\n2,2.5\n")

    def mixed(row: dict[str, Any]) -> dict[str, Any]:
        return {"id": row["id"], "x": row["x"] if row["id"] > 1 else "two"}

    with pytest.raises(BadInput, match=r'"x" is float64 in b.csv:2, but string in a.csv:2'):
        project.prepare(map=mixed)
    assert project.versions() == []


def test_duplicate_keys_are_named_with_their_files(project: Any) -> None:
    project.files(5)
    project.write(9, rows=0)
    (project.raw / "part-009.csv").write_text("id,x\n7,1.0\n31,1.0\n")
    with pytest.raises(BadInput, match=r"7 \(part-000.csv:9, part-009.csv:2\)") as error:
        project.prepare()
    assert error.value.facts["count"] == 2
    made = project.prepare(dedupe="key")
    assert ids(project.all_rows(made)) == list(range(50))
    assert {row["x"] for row in project.all_rows(made) if row["id"] == 7} == {3.5}


@pytest.mark.parametrize("unit_bytes", [0, 1 << 20])
def test_duplicate_keys_are_told_with_file_and_line_whatever_the_units(
    project: Any, unit_bytes: int
) -> None:
    project.files(3)
    (project.raw / "part-002.csv").write_text("id,x\n20,1.0\n20,2.0\n5,1.0\n")
    with pytest.raises(BadInput, match="keys name several rows") as error:
        project.prepare(map=project.steps.double, unit_bytes=unit_bytes)
    assert error.value.facts["duplicates"] == {
        "5": ["part-000.csv:7", "part-002.csv:4"],
        "20": ["part-002.csv:2", "part-002.csv:3"],
    }


def test_a_lambda_stays_in_this_process_and_cannot_travel(project: Any) -> None:
    project.files(5)
    made = project.prepare(map=lambda row: {"id": row["id"]})
    assert ids(project.all_rows(made)) == list(range(50))
    with pytest.raises(CannotTravel, match="workers=0"):
        project.prepare(map=lambda row: {"id": -row["id"]}, workers=2)


def test_a_captured_value_counts(project: Any) -> None:
    project.files(5)

    def scaled(by: int) -> Any:
        return lambda row: {"id": row["id"], "x": by * row["x"]}

    project.prepare(map=scaled(2))
    assert project.prepare(map=scaled(2)).reused
    assert not project.prepare(map=scaled(3)).reused


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"bad": "ignore"}, "no way to treat"),
        ({"bad_share": 2}, "no share"),
        ({"workers": -1}, "workers=-1"),
        ({"params": {"nobody": 1}}, "no function takes"),
        ({"steps": [3]}, "3 is no step"),
        ({"splits": 3}, "names no splits"),
        ({"types": {"x": int}}, "is no type"),
        ({"sort": "x", "shuffle": True}, "both"),
        ({"sort": "y"}, 'sort names a column "y"'),
        ({"key": "idd"}, 'key column "idd"'),
        ({"by": "episode"}, '"episode"'),
        ({"dedupe": "y"}, 'dedupe names a column "y"'),
    ],
)
def test_what_cannot_be_meant_is_refused(project: Any, options: dict[str, Any], what: str) -> None:
    project.files(2)
    with pytest.raises(BadInput, match=what):
        project.prepare(**options)
    assert project.versions() == []


def test_a_split_that_got_no_rows_is_refused_and_named(project: Any) -> None:
    project.files(2)
    ends = {"old": 0, "new": None}  # nothing is before 0
    for splits in (ByTime("id", ends), {"old": 1e-9, "new": 1 - 1e-9}):
        with pytest.raises(BadInput, match='split "old" got none of the 20 rows') as error:
            project.prepare(map=project.steps.double, splits=splits)
        assert "leave it out" in error.value.fix
        assert error.value.facts == {"split": "old", "rows": 20}
    assert project.versions() == []
    assert project.prepare(map=project.steps.double, splits={"all": 1}).reference == "data@1"


@pytest.mark.parametrize("where", ["map", "key", "rows"])
def test_a_function_that_captured_what_has_no_state_is_refused_before_anything(
    project: Any, where: str
) -> None:
    project.files(2)
    lock = threading.Lock()

    def locked(row: Any = None) -> Any:
        with lock:
            return row

    wish = {"map": (project.raw, {"map": locked}), "key": (project.raw, {"key": locked}),
            "rows": (locked, {})}  # fmt: skip
    sources, options = wish[where]
    sources = sources if callable(sources) else str(sources)
    with pytest.raises(CannotTravel, match=r"captures lock .*which cannot be"):
        prepare(project.stores, "data", sources, **options)
    with project.stores.meta.read() as meta:
        assert (meta.versions("dataset"), meta.runs(), meta.memories("unit")) == ([], [], [])
    assert list(project.stores.blobs.list()) == []


def test_no_rows_are_refused(project: Any) -> None:
    project.files(2)
    with pytest.raises(BadInput, match="gave 20 records, of which no step kept any"):
        project.prepare(filter=lambda row: False)
    with pytest.raises(BadInput, match="no file"):
        project.prepare(sources=project.folder / "nowhere*.csv")


def test_a_map_that_gives_no_row_is_told_with_its_place(project: Any) -> None:
    project.files(1)
    with pytest.raises(BadInput, match=r"part-000.csv:2: .* gave NoneType, not a row"):
        project.prepare(map=lambda row: None)


def test_a_key_function_that_raises_is_the_users_code(project: Any) -> None:
    project.files(1)
    with pytest.raises(UserCodeFailed, match="KeyError"):
        project.prepare(key=lambda row: row["nothing"])


def test_what_changes_between_two_runs_of_a_record_is_said(project: Any) -> None:
    project.files(3)
    made = project.prepare(map=project.steps.chancy)
    assert "a second run of the same record gave something else (part-000.csv" in made.notes[0]
    assert len(project.manifest(made).notes["unstable"]) >= 3
    assert project.prepare(map=project.steps.double, name="steady").notes == ()


def test_arrow_comes_through_without_steps(project: Any) -> None:
    import pyarrow.parquet as pq

    table = pa.table({"id": range(1000), "x": [i / 3 for i in range(1000)]})
    pq.write_table(table, project.raw / "all.parquet")
    made = project.prepare(splits={"all": 1})
    assert project.rows(made)["all"] == table.to_pylist()
    inputs = project.manifest(made).table("inputs")
    assert inputs["name"].to_pylist() == ["all.parquet"]
