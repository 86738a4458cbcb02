"""Expectations: inferred, kept in a file that people edit, and compared with what comes later."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from penstock.base.errors import BadInput, NotFound, Refused
from penstock.base.hashing import canonical_json
from penstock.blobs import Blobs, open_blobs
from penstock.data.columns import column_of_field, tensor_array
from penstock.data.diff import diff
from penstock.data.expectations import (
    Checker,
    Expectation,
    Expectations,
    Violation,
    check,
    check_manifest,
    check_tables,
    infer,
    load,
    outcome,
    refuse,
)
from penstock.data.expectations.rules import RULES
from penstock.data.types import Category, Episode, Tokens


def rows(count: int, seed: int = 0) -> dict[str, Any]:
    chance = np.random.default_rng(seed)
    return {
        "id": np.arange(count) + 1_000_000 * seed,
        "image": chance.random((count, 4, 4)).astype(np.float32),
        "label": chance.integers(0, 5, count),
        "flag": chance.random(count) < 0.5,
        "price": chance.lognormal(size=count).astype(np.float32),
        "words": [chance.integers(0, 90, 1 + i % 7) for i in range(count)],
        "name": [f"{seed}-{i:04}" for i in range(count)],
        "at": pa.array([dt.datetime(2026, 1, 1)] * count),
        "maybe": pa.array([None if i % 10 == 0 else x for i, x in enumerate(chance.random(count))]),
    }


TYPES = {"label": Category(), "words": Tokens(90, varying=True)}


@pytest.fixture(scope="module")
def store() -> Blobs:
    return open_blobs("memory://")


@pytest.fixture(scope="module")
def version(make: Any, store: Blobs) -> Any:
    """A version of 1000 rows in two splits."""
    return make(store, rows(1000), types=TYPES, splits={"train": 0.8, "test": 0.2}, shard_rows=150)


@pytest.fixture(scope="module")
def expected(version: Any, store: Blobs) -> Expectations:
    return infer(store, version, "things@1")


def told(violations: list[Violation]) -> dict[str, str]:
    return {each.expectation.name: each.what for each in violations}


def test_a_version_meets_what_is_inferred_from_it(
    version: Any, store: Blobs, expected: Expectations
) -> None:
    assert check(store, version, expected) == []
    assert check_manifest(version, expected) == []


def test_the_file_says_what_every_rule_means_and_comes_back(expected: Expectations) -> None:
    text = expected.to_toml()
    assert Expectations.from_toml(text) == expected
    assert text.startswith("# What is expected of things@1.")
    for rule in {each.rule for each in expected.rules}:
        assert f"# {rule}:" in text
    assert max(map(len, text.splitlines())) <= 125
    assert 'categories = { are = [0, 1, 2, 3, 4], severity = "refuse" }' in text


def test_every_kind_of_column_gets_its_rules(expected: Expectations) -> None:
    found = {column: [each.rule for each in expected.of("columns", column)] for column in rows(1)}
    assert found == {
        "id": ["type"],
        "image": ["type", "missing", "finite", "range", "distribution"],
        "label": ["type", "missing", "categories", "distribution"],
        "flag": ["type", "missing", "distribution"],
        "price": ["type", "missing", "finite", "range", "distribution"],
        "words": ["type", "missing", "range", "length", "distribution"],
        "name": ["type", "missing", "length", "unique", "distribution"],
        "at": ["type", "missing", "range", "distribution"],
        "maybe": ["type", "missing", "finite", "range", "distribution"],
    }
    (missing,) = (each for each in expected.of("columns", "maybe") if each.rule == "missing")
    assert missing.values["most"] == pytest.approx(0.2, abs=0.01)
    assert missing.severity == "warn"


def test_another_sample_of_the_same_distribution_is_expected(
    make: Any, store: Blobs, expected: Expectations
) -> None:
    for seed in range(1, 5):
        other = make(store, rows(600, seed), types=TYPES)
        found = told(check(store, other, expected))
        assert not [name for name in found if "distribution" in name]


@pytest.mark.parametrize("count", [5, 20, 100])
def test_few_rows_of_the_same_distribution_are_no_drift(
    make: Any, store: Blobs, expected: Expectations, count: int
) -> None:
    few = make(store, rows(count, 3), types=TYPES)
    assert set(told(check(store, few, expected))) == {"dataset.rows"}


def test_everything_that_does_not_hold_is_told_with_rows_and_samples(
    make: Any, store: Blobs, expected: Expectations
) -> None:
    bad = rows(1000)
    bad["label"] = bad["label"].copy()
    bad["label"][7] = 9
    bad["image"] = bad["image"].copy()
    bad["image"][3, 0, 0] = np.nan
    bad["price"] = bad["price"] * 50
    bad["name"] = ["" if i == 5 else f"0-{i % 900:04}" for i in range(1000)]
    bad["maybe"] = pa.array([None] * 600 + [1.0] * 400)
    bad["more"] = np.zeros(1000)
    del bad["flag"]
    data = make(store, bad, types=TYPES)
    found = {each.expectation.name: each for each in check(store, data, expected)}
    assert set(found) == {
        "dataset.other_columns", "columns.image.finite", "columns.label.categories",
        "columns.flag.type", "columns.price.range", "columns.price.distribution",
        "columns.name.length", "columns.name.unique", "columns.maybe.missing",
        "columns.maybe.distribution",
    }  # fmt: skip
    label = found["columns.label.categories"]
    assert (label.count, label.severity, label.samples) == (1, "refuse", (9,))
    (place,) = label.rows
    assert (place.split, place.row, place.key) == ("all", 7, "7")
    assert found["columns.image.finite"].rows[0].key == "3"
    assert found["columns.name.length"].samples == ("",)
    assert found["columns.name.unique"].count == 99
    assert found["columns.flag.type"].what == "the column is not there"
    assert "600 of 1000" in found["columns.maybe.missing"].what
    assert "more" in found["dataset.other_columns"].what
    assert len(found["columns.price.range"].rows) == 5 < found["columns.price.range"].count


def test_a_glance_at_the_manifest_sees_the_same_without_rows(
    make: Any, store: Blobs, expected: Expectations
) -> None:
    bad = rows(1000)
    bad["label"] = np.where(np.arange(1000) == 7, 9, bad["label"])
    bad["price"] = bad["price"] * 50
    bad["image"] = np.where(np.arange(1000)[:, None, None] == 3, np.float32("nan"), bad["image"])
    del bad["flag"]
    data = make(store, bad, types=TYPES)
    read = told(check(store, data, expected))
    seen = told(check_manifest(data, expected))
    assert set(seen) == set(read) == {
        "columns.image.finite", "columns.label.categories", "columns.flag.type",
        "columns.price.range", "columns.price.distribution",
    }  # fmt: skip
    assert '"9"' in seen["columns.label.categories"]


def one(rule: str, severity: str = "warn", column: str = "x", **values: Any) -> Expectations:
    return Expectations((Expectation("columns", column, rule, values, severity),))  # type: ignore[arg-type]


def violations(given: Expectations, array: Any) -> list[Violation]:
    table = pa.table({"x": array})
    return check_tables([("all", table)], given)


def broken(given: Expectations, array: Any) -> list[int]:
    found = violations(given, array)
    return [place.row for place in found[0].rows] if found else []


LISTS = pa.array([[1.0, 2.0], [], None, [9.0]], pa.list_(pa.float64()))


@pytest.mark.parametrize(
    ("given", "array", "wanted"),
    [
        (one("range", least=0, most=5), [1, 6, None, -1, 5, 0], [1, 3]),
        (one("range", least=0), [-1, 10**9], [0]),
        (one("range", most=1.5), pa.array([1, 2], pa.uint8()), [1]),
        (one("range", least=-1, most=300), pa.array([0, 255], pa.uint8()), []),
        (one("range", least=256), pa.array([0, 255], pa.uint8()), [0, 1]),
        (one("range", most=float("inf")), [1, 2], []),
        (one("range", least=0, most=5), LISTS, [3]),
        (one("range", least=0, most=5), tensor_array(np.array([[1, 2], [1, 6], [0, 0]])), [1]),
        (one("range", most=0), [True, False], [0]),
        (one("length", least=1, most=2), ["", "é", "abc", None, "ab"], [0, 2]),
        (one("length", most=2), [b"abc", None, b""], [0]),
        (one("length", least=1), LISTS, [1]),
        (one("missing", most=0.0), [1, None, 2, None], [1, 3]),
        (one("finite", most=0.0), [1.0, float("inf"), None, float("nan")], [1, 3]),
        (one("finite", most=0.0), pa.array([[1.0], [float("nan")]], pa.list_(pa.float32())), [1]),
        (one("categories", are=["a", "b"]), ["a", "c", None], [1]),
        (one("categories", are=[1, 2]), [1, 3, None, 2], [1]),
        (one("categories", are=[True]), [True, False], [1]),
        (one("pattern", **{"is": "^[a-z]+$"}), ["abc", "ABC", None, ""], [1, 3]),
        (one("unique"), [1, 2, None, 1, None, 2], [3, 5]),
        (one("unique"), ["a", "b", "a"], [2]),
    ],
    ids=lambda each: each.rules[0].rule if isinstance(each, Expectations) else "",
)  # fmt: skip
def test_the_rows_that_break_a_rule_are_named(
    given: Expectations, array: Any, wanted: list[int]
) -> None:
    assert sorted(broken(given, array)) == wanted


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_literals_mean_what_they_mean_in_the_dtype_of_the_column(dtype: str) -> None:
    tenth = pa.array(np.array([0.1, 0.7], dtype))
    assert violations(one("range", least=0.1, most=0.7), tenth) == []
    assert len(violations(one("range", least=0.1001, most=0.7), tenth)) == 1


def test_shares_are_of_the_whole() -> None:
    assert violations(one("missing", most=0.5), [1, None]) == []
    (found,) = violations(one("missing", most=0.4), [1, None])
    assert found.what == "1 of 2 (50.00%) are missing, expected at most 40.00%"
    assert (found.count, found.rows) == (0, ())


@pytest.mark.parametrize(
    ("given", "array", "what"),
    [
        (one("type", **{"is": "int32"}), [1], "it is int64, expected int32"),
        (
            one("type", **{"is": "int64", "meaning": "category"}),
            [1],
            'means "", expected "category"',
        ),
        (one("type", column="y", **{"is": "int64"}), [1], "the column is not there"),
        (one("range", column="y", most=1), [1], "the column is not there"),
    ],
)
def test_types_and_columns_that_are_not_there_are_told(
    given: Expectations, array: Any, what: str
) -> None:
    (found,) = violations(given, array)
    assert what in found.what


def test_rules_that_cannot_be_asked_are_one_clear_error() -> None:
    with pytest.raises(BadInput, match=r"columns.x.range cannot be asked of a column of string"):
        violations(one("range", most=1), ["a"])
    typed = replace(one("range", most=1), rules=(
        Expectation("columns", "x", "type", {"is": "int64"}), *one("range", most=1).rules,
    ))  # fmt: skip
    assert list(told(violations(typed, ["a"]))) == ["columns.x.type"]
    with pytest.raises(BadInput, match='a column "drive", which is not in the data'):
        violations(Expectations((Expectation("leakage", "", "episode", {"column": "drive"}),)), [1])


def test_rows_to_set_aside_are_told_block_by_block_and_count_no_more() -> None:
    rules = (
        Expectation("columns", "x", "range", {"most": 5}, "quarantine"),
        Expectation("columns", "x", "categories", {"are": [1, 2, 3, 9]}, "refuse"),
        Expectation("columns", "x", "unique", {}, "refuse"),
        Expectation(
            "columns", "x", "distribution", {"most": 0.2, "edges": [2.0], "shares": [0.5, 0.5]}
        ),
    )  # fmt: skip
    table = pa.table({"id": ["a", "b", "c", "d"], "x": [1, 9, 2, 9]})
    with Checker(Expectations(rules), list(map(column_of_field, table.schema)), "id") as checker:
        assert checker.add(table.slice(0, 2), "train").tolist() == [False, True]
        assert checker.add(table.slice(2), "train").tolist() == [False, True]
        (found,) = checker.finish()
    assert (found.count, found.severity) == (2, "quarantine")
    assert [(place.row, place.key) for place in found.rows] == [(1, "b"), (3, "d")]


def test_a_refusal_names_all_that_refuses(make: Any, store: Blobs, expected: Expectations) -> None:
    bad = rows(1000) | {"label": np.full(1000, 8), "price": np.full(1000, np.float32("nan"))}
    found = check(store, make(store, bad, types=TYPES), expected)
    with pytest.raises(Refused) as error:
        refuse(found, "dataset things")
    assert "columns.label.categories" in error.value.what
    assert "columns.price.finite" in error.value.what
    assert len(error.value.facts["violations"]) == 2
    refuse([each for each in found if each.severity == "warn"], "dataset things")


def test_severities_change_by_rule(expected: Expectations) -> None:
    eased = expected.with_severity("quarantine", "categories", "range")
    assert {e.severity for e in eased.rules if e.rule in ("categories", "range")} == {"quarantine"}
    assert Expectations.from_toml(eased.to_toml()) == eased


WRONG = """
format = 1
more = 1
[columns.x]
rang = { most = 1 }
range = { mos = 1 }
missing = { most = 2 }
finite = {}
pattern = { is = "(" }
unique = { severity = "quarantine" }
length = { most = 3, severity = "explode" }
distribution = { most = 0.2, edges = [2.0, 1.0], shares = [1.0] }
[columns]
y = 3
[dataset]
rows = { least = "many" }
[leakage]
episode = {}
"""


def test_everything_that_is_wrong_with_a_file_is_listed() -> None:
    with pytest.raises(BadInput, match=r"things.toml cannot be what was meant") as error:
        Expectations.from_toml(WRONG, "things.toml")
    wrong = error.value.facts["wrong"]
    for part in (
        "more: there is no such name", "columns.x.rang: there is no such name", "range.mos",
        "columns.x.missing.most: 2 is no share", "columns.x.finite: it lacks `most`",
        "columns.x.pattern.is", "columns.x.unique.severity: no single row", "explode",
        "3 bins", "do not ascend", "columns.y: it is 3, not a table", "dataset.rows.least",
        "leakage.episode: it lacks `column`",
    ):  # fmt: skip
        assert any(part in each for each in wrong), part
    assert "range" in next(each for each in wrong if "rang:" in each)


def test_what_is_no_toml_and_a_later_format_are_clear_errors() -> None:
    with pytest.raises(BadInput, match=r"x.toml does not parse as TOML"):
        Expectations.from_toml("[columns", "x.toml")
    with pytest.raises(BadInput, match="has format 2; this Penstock reads 1"):
        Expectations.from_toml("format = 2")


names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=8)


@settings(deadline=None)
@given(
    st.dictionaries(names, st.lists(names | st.integers(), max_size=40), min_size=1, max_size=4),
    st.floats(0, 1),
    st.sampled_from(["warn", "quarantine", "refuse"]),
)
def test_whatever_names_and_numbers_the_file_comes_back(
    columns: dict[str, list[Any]], share: float, severity: Any
) -> None:
    rules = [
        rule
        for name, are in columns.items()
        for rule in (
            Expectation("columns", name, "categories", {"are": are}, severity),
            Expectation("columns", name, "missing", {"most": share}),
            Expectation("columns", name, "range", {"least": -1e300, "most": float("inf")}),
        )
    ]
    given = Expectations(tuple(rules), "digits@3")
    assert Expectations.from_toml(given.to_toml()) == given


def test_every_rule_has_words_and_fields() -> None:
    for rule in RULES.values():
        assert rule.words
        assert all(kind for kind, _ in rule.fields.values())


def test_episodes_are_inferred_as_what_must_not_leak(make: Any, store: Blobs) -> None:
    data = make(store, {"id": [1, 2], "drive": ["a", "b"]}, types={"drive": Episode()})
    (leak,) = (each for each in infer(store, data).rules if each.rule == "episode")
    assert (leak.values, leak.severity) == ({"column": "drive"}, "refuse")


def test_a_file_is_loaded_or_said_to_be_missing(tmp_path: Path, expected: Expectations) -> None:
    path = tmp_path / "things.toml"
    path.write_text(expected.to_toml(), encoding="utf-8")
    assert load(path) == load(str(path)) == load(expected) == expected
    with pytest.raises(NotFound, match=r"gone.toml cannot be read"):
        load(tmp_path / "gone.toml")


def test_a_manifest_can_note_the_outcome(make: Any, store: Blobs, expected: Expectations) -> None:
    bad = make(store, rows(1000) | {"label": np.full(1000, 8)}, types=TYPES)
    noted = outcome(expected, check(store, bad, expected))
    assert json.loads(canonical_json(noted)) == noted
    assert noted["violations"][0]["expectation"] == "columns.label.categories"
    assert noted["violations"][0]["rows"][0] == ["all", 0, "0"]


def arrays(count: int) -> st.SearchStrategy[Any]:
    """A column of any kind, with gaps where it may have some."""
    dtypes = ["bool", "int8", "int64", "uint8", "uint64", "float16", "float32", "float64"]

    def gaps(values: st.SearchStrategy[Any], kind: Any) -> st.SearchStrategy[Any]:
        rows = st.lists(st.none() | values, min_size=count, max_size=count)
        return rows.map(lambda found: pa.array(found, kind))

    return st.one_of(
        st.sampled_from(dtypes).flatmap(lambda dtype: hnp.arrays(dtype, count)),
        st.sampled_from(dtypes).flatmap(lambda dtype: hnp.arrays(dtype, (count, 2, 2))),
        gaps(st.text(max_size=4), pa.string()),
        gaps(st.binary(max_size=4), pa.binary()),
        gaps(st.lists(st.integers(-5, 5), max_size=4), pa.list_(pa.int16())),
        gaps(st.floats(width=32), pa.float32()),
        gaps(st.integers(0, 2**64 - 1), pa.uint64()),
        gaps(st.datetimes(), pa.timestamp("us")),
    )


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 12).flatmap(lambda n: st.lists(arrays(n), min_size=1, max_size=3)))
def test_any_version_meets_what_is_inferred_from_it(make: Any, columns: list[Any]) -> None:
    blobs = open_blobs("memory://")
    given = {f"c{i}": each for i, each in enumerate(columns)}
    data = make(blobs, given | {"id": np.arange(len(columns[0]))}, shard_rows=5)
    expected = infer(blobs, data, "any@1")
    assert Expectations.from_toml(expected.to_toml()) == expected
    assert check(blobs, data, expected) == []
    assert check_manifest(data, expected) == []
    assert diff(blobs, data, data).equal
