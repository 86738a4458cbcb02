"""A function that gives other rows when it is called again is found out, and nothing fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.base.errors import BadInput
from penstock.data.manifest import read_manifest
from penstock.data.preparation import again, prepare
from penstock.jobs.stores import Stores

HOW: dict[str, Any] = {"splits": {"all": 1}}
taken: list[int] = []


@pytest.fixture(autouse=True)
def a_busy_machine_is_not_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "SECONDS", 60.0)


def drawn() -> Iterator[dict[str, Any]]:
    draw = np.random.default_rng()
    yield from ({"id": i, "x": draw.random()} for i in range(50))


def drawn_table() -> dict[str, Any]:
    return {"id": np.arange(50), "x": np.random.default_rng().random(50)}


def drawn_batches() -> Iterator[pa.Table]:
    for _ in range(2):
        yield pa.table(drawn_table())


def drawn_list() -> list[dict[str, Any]]:
    return list(drawn())


def seeded() -> Iterator[dict[str, Any]]:
    """Its rows are the same, NaN and arrays included; what it takes is written down."""
    draw = np.random.default_rng(7)
    for i in range(50):
        taken.append(i)
        yield {"id": i, "x": draw.random(), "gap": float("nan"), "image": draw.random((2, 2))}


def shorter(calls: Any = count()) -> Iterator[dict[str, Any]]:  # noqa: B008
    if next(calls):
        raise ValueError("only once")
    yield {"id": 1}


def made(stores: Stores, function: Callable[..., Any], **options: Any) -> tuple[str, ...]:
    found = prepare(stores, "data", function, **HOW, **options)
    notes = read_manifest(stores.blobs, found.version.digest).notes
    assert list(found.notes) == notes.get("unstable_calls", [])
    return found.notes


@pytest.mark.parametrize("function", [drawn, drawn_table, drawn_batches, drawn_list])
def test_rows_that_differ_the_second_time_are_said_and_noted(
    stores: Stores, function: Callable[..., Any]
) -> None:
    (note,) = made(stores, function)
    assert note.startswith(f"{__name__}:{function.__name__}: a second call gave other first rows")
    assert "seed" in note


def test_rows_that_are_the_same_are_not_spoken_of_and_taken_once(stores: Stores) -> None:
    taken.clear()
    assert made(stores, seeded) == ()
    assert taken == [*range(50), 0, 1, 2]


def test_what_was_put_through_steps_is_told_too(stores: Stores) -> None:
    (note,) = made(stores, drawn, map=dict, key="id", workers=0)
    assert "a second call gave other first rows" in note
    assert made(stores, drawn, map=dict, key="id", workers=0, shuffle=1) == (note,)


def test_a_function_that_can_be_called_once_gives_its_rows(stores: Stores) -> None:
    (note,) = made(stores, lambda: shorter())
    assert note.endswith("a second call raised ValueError: only once")


def test_a_slow_function_is_called_once(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "SECONDS", -1.0)
    taken.clear()
    assert made(stores, seeded) == ()
    assert taken == [*range(50)]


def wrong_rows() -> Iterator[Any]:
    yield from (5, None)


def wrong_columns() -> dict[str, Any]:
    return {"id": [1, 2], "x": [1]}


@pytest.mark.parametrize(
    ("function", "what"),
    [(wrong_rows, "gave a int among its rows"), (wrong_columns, "not equally long")],
)
def test_what_is_no_data_is_told_as_before(
    stores: Stores, function: Callable[..., Any], what: str
) -> None:
    with pytest.raises(BadInput, match=what):
        made(stores, function)


@pytest.mark.parametrize("how", [{}, {"map": dict, "workers": 0}])
def test_keys_that_differ_the_second_time_are_said_and_noted(
    stores: Stores, how: dict[str, Any]
) -> None:
    def chancy(row: dict[str, Any]) -> str:
        return f"{row['id']}-{np.random.default_rng().random()}"

    (note,) = made(stores, seeded, key=chancy, **how)
    assert "chancy: a second call gave another key for the same row" in note
    assert made(stores, seeded, key=lambda row: row["id"], **how) == ()
