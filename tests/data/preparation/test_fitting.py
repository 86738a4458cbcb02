"""One bad row costs one row: what does not fit the others, or has no key or split, is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from penstock.base.errors import BadInput
from penstock.data.preparation import ByTime, Prepared
from penstock.data.types import Tensor

Lines = Callable[[str, list[Any]], Path]


def notes(project: Any, made: Prepared) -> list[tuple[str, str]]:
    first = project.manifest(made).notes["records"]["first"]
    return [(each["place"], each["step"]) for each in first]


BREAKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another type": lambda row: {**row, "x": "text"},
    "a missing column": lambda row: {"id": row["id"]},
    "another column": lambda row: {**row, "more": 1},
    "no row": lambda row: [row],
    "a value of no column": lambda row: {**row, "x": {1, 2}},
    "too large": lambda row: {**row, "x": 2**70},
    "another shape": lambda row: {**row, "image": np.zeros((3, 3))},
    "a missing tensor": lambda row: {**row, "image": None},
    "no key": lambda row: {**row, "id": None},
    "no group": lambda row: {**row, "by": None},
}


def whole(row: dict[str, Any]) -> dict[str, Any]:
    n = row["id"]
    note = f"n{n}" if n % 3 else None
    return {"id": n, "x": n / 2, "by": n % 5, "note": note, "image": np.full((2, 2), n)}


def broken(bad: dict[int, str]) -> Callable[[dict[str, Any]], Any]:
    def run(row: dict[str, Any]) -> Any:
        made = whole(row)
        return BREAKS[bad[row["id"]]](made) if row["id"] in bad else made

    return run


@pytest.mark.parametrize("unit_bytes", [0, 1 << 20])
def test_one_bad_row_costs_one_row(project: Any, unit_bytes: int) -> None:
    project.files(3)
    bad = dict(zip(range(1, 30, 3), BREAKS, strict=True))
    made = project.prepare(
        map=broken(bad), bad="skip", bad_share=0.5, by="by", splits={"a": 0.5, "b": 0.5},
        unit_bytes=unit_bytes,
    )  # fmt: skip
    kept = {"no key": "key", "no group": "split"}
    assert sorted(notes(project, made)) == sorted(
        (f"part-00{n // 10}.csv:{n % 10 + 2}", kept.get(how, "schema")) for n, how in bad.items()
    )
    rows = project.all_rows(made)
    assert sorted(row["id"] for row in rows) == sorted({*range(30)} - bad.keys())
    assert all(row["note"] == whole(row)["note"] for row in rows)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    bad=st.dictionaries(st.integers(0, 29), st.sampled_from(sorted(BREAKS)), max_size=9),
    unit_bytes=st.sampled_from([0, 100, 1 << 20]),
)
def test_the_version_is_that_of_the_good_records_alone(
    project: Any, bad: dict[int, str], unit_bytes: int
) -> None:
    if not any(project.raw.iterdir()):
        project.files(3)
    options = {"by": "by", "splits": {"all": 1}, "unit_bytes": unit_bytes}

    made = project.prepare(map=broken(bad), bad="skip", bad_share=1, **options)
    assert project.manifest(made).notes["records"]["bad"] == len(bad)
    good = project.prepare(
        name="good", steps=[("filter", lambda row: row["id"] not in bad), whole], **options
    )
    assert made.version.summary["splits"] == good.version.summary["splits"]
    one, other = project.manifest(made), project.manifest(good)
    assert one.schema == other.schema
    assert one.shards.digests() == other.shards.digests()


def test_most_rows_of_all_units_decide_though_a_unit_disagrees(project: Any, jsonl: Lines) -> None:
    rows = [{"id": n, "kind": "n" if n in (0, 1, 4) else "i"} for n in range(12)]
    for number in range(3):
        path = jsonl(f"raw/part-{number}.jsonl", rows[4 * number : 4 * number + 4])
        assert path.exists()

    def mixed(row: dict[str, Any]) -> dict[str, Any]:
        return {"id": row["id"], "x": str(row["id"]) if row["kind"] == "n" else row["id"]}

    for unit_bytes in (0, 1 << 20):
        made = project.prepare(
            map=mixed, bad="skip", bad_share=0.5, unit_bytes=unit_bytes, splits={"all": 1}
        )
        assert [row["x"] for row in project.all_rows(made)] == [2, 3, *range(5, 12)]
        assert [place for place, _ in notes(project, made)] == [
            "part-0.jsonl:1", "part-0.jsonl:2", "part-1.jsonl:1"
        ]  # fmt: skip
    assert project.versions() == ["data@1"]


def test_values_that_types_refuse_are_bad_records(project: Any) -> None:
    project.files(2)

    def shaped(row: dict[str, Any]) -> dict[str, Any]:
        return {"id": row["id"], "v": np.zeros(3 if row["id"] == 13 else 2, np.float32)}

    made = project.prepare(
        map=shaped, types={"v": Tensor((2,))}, bad="quarantine", splits={"all": 1}
    )
    assert len(project.all_rows(made)) == 19
    assert project.manifest(made).notes["quarantine"]["rows"] == 1


def test_a_batch_result_that_does_not_fit_is_searched_by_halves(project: Any) -> None:
    project.files(2)

    def odd(columns: dict[str, Any]) -> dict[str, Any]:
        if 13 in columns["id"]:
            return {"id": columns["id"], "x": [object()] * len(columns["id"])}
        return {"id": columns["id"], "x": columns["x"], "note": [None] * len(columns["id"])}

    def told(columns: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"id": int(n), "note": "a" if n == 3 else None} for n in columns["id"]]

    made = project.prepare(
        steps=[("batch", odd), ("batch", told)], bad="skip", bad_share=0.1, splits={"all": 1}
    )
    assert sorted(row["id"] for row in project.all_rows(made)) == sorted({*range(20)} - {13})
    assert notes(project, made) == [("part-001.csv:5", "schema")]


def test_a_time_that_nothing_can_be_compared_with_is_no_bad_record(project: Any) -> None:
    project.files(1)
    splits = ByTime("x", {"train": "2024-01-01", "test": None})
    with pytest.raises(BadInput, match="cannot be compared"):
        project.prepare(splits=splits, bad="skip", bad_share=1)
