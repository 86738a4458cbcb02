"""Whatever is told of a row says where its record stands: file and line, row, or offset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.base.errors import BadInput, Refused, UserCodeFailed
from penstock.data.preparation import ByTime, Prepared


def number(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "x": "two" if row["id"] == 12 else row["x"]}


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"map": number}, r'"x" is string, not float64 \(part-001.csv:4\)'),
        ({"key": lambda row: row["id"] + 0 // (row["id"] - 12)}, r"ZeroDiv.*\(part-001.csv:4\)"),
        ({"key": lambda row: None if row["id"] == 12 else row["id"]}, r"part-001.csv:4: .* None"),
        ({"map": lambda row: {**row, "by": None if row["id"] == 12 else "a"}, "by": "by"},
         r'part-001.csv:4: the column of `by` "by" holds None'),
        ({"map": lambda row: {**row, "at": None if row["id"] == 12 else 1.0},
          "splits": ByTime("at", {"train": 2, "test": None})}, 'part-001.csv:4: .*"at"'),
        ({"map": lambda row: {**row, "fold": "a b" if row["id"] == 12 else "a"}, "splits": "fold"},
         'part-001.csv:4: "a b" cannot be the name of a split'),
        ({"map": lambda row: {**row, "z": 2**70 if row["id"] == 12 else 1}},
         r'"z" is uint64, not int64|a value cannot be kept.* \(part-001.csv:4\)'),
    ],
)  # fmt: skip
def test_what_a_row_lacks_is_told_with_file_and_line(
    project: Any, options: dict[str, Any], what: str
) -> None:
    project.files(3)  # they share a unit
    with pytest.raises((BadInput, UserCodeFailed), match=what) as error:
        project.prepare(**options)
    assert error.value.facts["place"] == "part-001.csv:4"
    assert project.versions() == []


def test_places_are_those_of_the_record_that_a_row_was_made_of(project: Any) -> None:
    project.files(3)
    steps = project.steps
    with pytest.raises(BadInput) as error:
        project.prepare(
            steps=[("filter", steps.even), ("flat_map", lambda row: [row, {**row, "id": -1}])]
        )
    (found,) = error.value.facts["duplicates"].values()
    assert found[:5] == [f"part-000.csv:{line}" for line in (2, 4, 6, 8, 10)]


def test_a_batch_that_gives_another_number_of_rows_says_about_where(project: Any) -> None:
    project.files(2)
    with pytest.raises(BadInput) as error:
        project.prepare(batch=lambda columns: {"id": [7, 7]})
    assert error.value.facts["duplicates"] == {
        "7": ["part-000.csv:2 or after"] * 2 + ["part-001.csv:2 or after"] * 2
    }


def test_rows_of_a_kept_step_know_their_record(project: Any) -> None:
    project.files(3)
    steps = [project.steps.double, ("map", lambda row: {**row, "z": 1 / (row["y"] - 4)})]
    made = project.prepare(steps=steps, bad="skip", bad_share=0.5)
    places = [f"part-00{n}.csv:6" for n in range(3)]
    first = project.manifest(made).notes["records"]["first"]
    assert [each["place"] for each in first] == places
    again = [project.steps.double, ("map", lambda row: {**row, "z": 2 / (row["y"] - 4)})]
    made = project.prepare(steps=again, bad="skip", bad_share=0.5)
    first = project.manifest(made).notes["records"]["first"]
    assert [each["place"] for each in first] == places


def test_rows_that_are_set_aside_or_refused_are_told_with_their_places(
    project: Any, tmp_path: Path
) -> None:
    pq.write_table(
        pa.table({"id": range(6), "x": [1.0, 2, 3, -4, 5, -6]}), project.raw / "a.parquet"
    )
    file = tmp_path / "expected.toml"
    rule = 'format = 1\n[columns.x]\nrange = {{ least = 0.5, severity = "{}" }}\n'
    file.write_text(rule.format("refuse"))
    with pytest.raises(Refused, match=r"all\[3\] \(3, a.parquet row 3"):
        project.prepare(expect=file, splits={"all": 1})
    file.write_text(rule.format("quarantine"))
    project.prepare(expect=file, splits={"all": 1})
    with project.stores.meta.read() as meta:
        aside = meta.get_version("dataset", "data-quarantine")
    places = [row["place"] for row in project.all_rows(Prepared(aside, False, ""))]
    assert [each.partition(",")[0] for each in places] == [
        "a.parquet row 3 (row group 0)", "a.parquet row 5 (row group 0)"
    ]  # fmt: skip
