"""A bad record never stops the others, unless it is wanted; it is told with its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock.base.errors import BadInput, Refused, UserCodeFailed
from penstock.data.preparation import Prepared

pytestmark = pytest.mark.usefixtures("a_file_a_unit")

Lines = Callable[[str, list[Any]], Path]


def threes(rows: int) -> list[int]:
    return [i for i in range(rows) if i % 10 == 3]


def test_the_first_bad_record_ends_it_with_its_place_and_the_users_traceback(project: Any) -> None:
    project.files(5)
    with pytest.raises(UserCodeFailed, match=r"ValueError: no threes: 3 \(part-000.csv") as error:
        project.prepare(map=project.steps.picky)
    assert error.value.facts["place"].startswith("part-000.csv")
    trace = error.value.facts["traceback"]
    assert "raise ValueError" in trace
    assert "penstock" not in trace
    assert project.versions() == []


@pytest.mark.faults
def test_so_it_does_in_a_worker(project: Any) -> None:
    project.files(5)
    with pytest.raises(UserCodeFailed, match=r"no threes: \d*3 ") as error:
        project.prepare(map=project.steps.picky, workers=2)
    assert "raise ValueError" in error.value.facts["traceback"]


@pytest.mark.parametrize("step", ["picky", "picky_sums"])
def test_bad_records_are_skipped_up_to_a_share_and_counted(project: Any, step: str) -> None:
    project.files(5)
    kind = "batch" if step == "picky_sums" else "map"
    options = {kind: getattr(project.steps, step), "bad": "skip"}
    made = project.prepare(bad_share=0.1, **options)
    kept = sorted(row["id"] for row in project.all_rows(made))
    assert kept == sorted({*range(50)} - {*threes(50)})
    note = project.manifest(made).notes["records"]
    assert (note["records"], note["bad"], note["share"]) == (50, 5, 0.1)
    assert note["steps"] == {f"{kind} project_steps.{step}": 5}
    assert [each["place"].partition(":")[0] for each in note["first"]] == [
        f"part-{n:03d}.csv" for n in range(5)
    ]
    assert made.notes[0].startswith("5 of 50 records are bad and were skipped: part-000.csv")


def test_more_than_the_share_is_an_error_that_names_the_worst_files(project: Any) -> None:
    project.files(5)
    with pytest.raises(BadInput, match=r"5 of 50 records are bad \(10.00%\)") as error:
        project.prepare(map=project.steps.picky, bad="skip", bad_share=0.09)
    assert len(error.value.facts["worst"]) == 5
    assert project.versions() == []
    project.prepare(map=project.steps.picky, bad="skip", bad_share=0.5)
    assert project.ran() == 0  # what was done for the refused call is kept


def test_what_was_left_out_before_still_ends_a_call_that_allows_nothing(project: Any) -> None:
    project.files(5)
    project.prepare(map=project.steps.picky, bad="skip", bad_share=0.5)
    with pytest.raises(UserCodeFailed, match="no threes: 3"):
        project.prepare(map=project.steps.picky)


def test_bad_records_become_a_dataset_of_their_own(project: Any, jsonl: Lines) -> None:
    rows: list[Any] = [{"id": i, "x": float(i)} for i in range(60)]
    rows[17] = '{"id": 17, "x": '
    made = project.prepare(
        sources=jsonl("raw.jsonl", rows), map=project.steps.picky, bad="quarantine"
    )
    assert len(project.all_rows(made)) == 53
    assert project.versions() == ["data-quarantine@1", "data@1"]
    with project.stores.meta.read() as meta:
        aside = meta.get_version("dataset", "data-quarantine")
    put = project.all_rows(Prepared(aside, False, ""))
    assert [each["step"] for each in put].count("read") == 1
    assert [each["step"] for each in put].count("map project_steps.picky") == 6
    (unreadable,) = (each for each in put if each["step"] == "read")
    assert b'{"id": 17' in unreadable["raw"]
    (first,) = (
        each for each in put if "no threes: 3" in each["error"] and "33" not in each["error"]
    )
    assert (first["raw"], "raw.jsonl" in first["place"]) == (b'{"id": 3, "x": 3.0}', True)
    assert project.manifest(made).notes["quarantine"] == {"dataset": "data-quarantine", "rows": 7}


def test_a_step_behind_a_kept_one_tells_places_too(project: Any) -> None:
    project.files(5)
    steps = [project.steps.double, ("map", lambda row: {"id": row["id"], "w": 1 / row["y"]})]
    made = project.prepare(steps=steps, bad="skip", bad_share=0.5)
    note = project.manifest(made).notes["records"]
    assert (note["records"], note["bad"]) == (50, 5)
    assert all("ZeroDivisionError" in each["error"] for each in note["first"])
    again = [project.steps.double, ("map", lambda row: {"id": row["id"], "w": 2 / row["y"]})]
    made = project.prepare(steps=again, bad="skip", bad_share=0.5)
    assert project.manifest(made).notes["records"]["bad"] == 5


def test_of_a_file_that_is_damaged_in_the_middle_what_can_be_read_stays(project: Any) -> None:
    for number in range(3):
        ids = range(100 * number, 100 * number + 100)
        pq.write_table(
            pa.table({"id": ids, "x": [i / 3 for i in ids]}), project.raw / f"{number}.parquet",
            row_group_size=25, compression="none", use_dictionary=False,
            write_page_checksum=True,
        )  # fmt: skip
    path = project.raw / "1.parquet"
    group = pq.read_metadata(path).row_group(2)
    data = bytearray(path.read_bytes())
    data[group.column(1).data_page_offset + 3] ^= 0xFF  # the header of a page
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"1.parquet is damaged in row group 2, from row 50 on"):
        project.prepare()
    for unit_bytes in (0, 1 << 20):
        made = project.prepare(bad="skip", unit_bytes=unit_bytes, splits={"all": 1})
        ids = [row["id"] for row in project.all_rows(made)]
        assert ids == [*range(150), *range(200, 300)]
        note = project.manifest(made).notes["records"]
        assert (note["records"], note["bad"]) == (251, 1)
        ((place, error),) = ((each["place"], each["error"]) for each in note["first"])
        assert place == "1.parquet"
        assert error.startswith("the rest of 1.parquet was not read: 1.parquet is damaged in row")
    pq.write_table(pa.table({"id": [7, 300], "x": [0.0, 0.0]}), project.raw / "3.parquet")
    with pytest.raises(BadInput, match=r"7 \(0.parquet row 7 .*, 3.parquet row 0 .*\)"):
        project.prepare(bad="skip", unit_bytes=1 << 20)


def test_expectations_warn_set_aside_and_refuse(project: Any, tmp_path: Path) -> None:
    project.files(5)
    file = tmp_path / "expected.toml"
    rule = 'format = 1\n[columns.x]\nrange = {{ least = 0.5, severity = "{}" }}\n'
    file.write_text(rule.format("refuse"))
    with pytest.raises(Refused, match=r"x\.range"):
        project.prepare(expect=file)
    assert project.versions() == []
    file.write_text(rule.format("warn"))
    made = project.prepare(expect=file)
    assert made.notes[0].startswith("warn: ")
    assert len(project.all_rows(made)) == 50
    file.write_text(rule.format("quarantine"))
    made = project.prepare(expect=file)
    assert sorted(row["id"] for row in project.all_rows(made)) == [i for i in range(50) if i % 10]
    assert project.manifest(made).notes["quarantine"]["rows"] == 5
    with project.stores.meta.read() as meta:
        aside = meta.get_version("dataset", "data-quarantine")
    told = {row["error"] for row in project.all_rows(Prepared(aside, False, ""))}
    assert told == {"it is not as expected: columns.x.range"}
    assert project.prepare(expect=file).reused
