"""What preparation remembers goes with the versions that need it, and not before."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import data
from penstock.base.errors import UserCodeFailed
from penstock.base.settings import load_settings
from penstock.home import gc
from penstock.home.retention import retire
from penstock.jobs.stores import Stores, open_stores

HOW: dict[str, Any] = {"key": "id", "splits": {"all": 1}, "workers": 0, "unit_bytes": 0}
Row = dict[str, Any]


@pytest.fixture(autouse=True)
def one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stores of these tests go by one clock, so that no margin hides a mistake."""
    monkeypatch.setattr(gc, "_SKEW", 0.0)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with opened(tmp_path / "home") as found:
        yield found


def opened(home: Path) -> Any:
    return open_stores(load_settings(home=home, environment={}))


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., list[str]]:
    """`files(value)`: four files of 20 rows, the first of which have this value."""
    folder = tmp_path / "raw"
    folder.mkdir()

    def write(value: int = 0) -> list[str]:
        for n in range(4):
            rows = [f'{{"id": {100 * n + i}, "x": {value if n == 0 else n}}}' for i in range(20)]
            (folder / f"{n}.jsonl").write_text("\n".join(rows))
        return [str(folder / f"{n}.jsonl") for n in range(4)]

    return write


def double(row: Row) -> Row:
    return {**row, "x": row["x"] * 2}


def longer(row: Row) -> Row:
    return {**row, "y": row["x"] * [1] * 9}


def shifted(row: Row) -> Row:
    return {**row, "x": row["x"] + 1}


def forgotten(stores: Stores, **options: float) -> set[str]:
    """Retire all that may go, as if it was old, and collect; the blobs that are left."""
    retire(stores, None, 0, **{"grace_seconds": 0.0, **options})
    for _ in range(2):
        gc.collect_garbage(stores, grace_seconds=0)
    return {stat.digest for stat in stores.blobs.list()}


def starts(stores: Stores, files: list[str], steps: list[Any]) -> dict[int, int]:
    """Of the units that would run: step -> how many would begin there."""
    found = data.explain(stores, "d", files, steps=steps, **HOW).starts
    return {} if found is None else found


def test_kept_steps_go_with_the_versions_that_need_them(
    stores: Stores, tmp_path: Path, files: Any
) -> None:
    steps = [double, shifted]
    for value in range(3):
        data.prepare(stores, "d", files(value), steps=steps, **HOW)
    with opened(tmp_path / "fresh") as fresh:
        data.prepare(fresh, "d", files(2), steps=steps, **HOW)
        assert len(forgotten(stores)) <= len(forgotten(fresh)), "no more than without the older"
    assert data.prepare(stores, "d", files(2), steps=steps, **HOW).reused
    assert starts(stores, files(2), [double, longer]) == {1: 4}, "all know their first step"
    assert starts(stores, files(1), steps) == {0: 1}


def test_files_that_share_a_unit_stay_known_as_long_as_the_newest_version_does(
    stores: Stores, files: Any
) -> None:
    ran: set[int] = set()

    def counted(row: Row) -> Row:
        ran.add(row["id"] // 100)
        return row

    shared = {**HOW, "unit_bytes": None, "map": counted}
    for value in range(3):
        ran.clear()
        data.prepare(stores, "d", files(value), **shared)
        assert ran == ({0} if value else {0, 1, 2, 3})
        forgotten(stores, unfinished_seconds=0.0)
    with stores.meta.read() as meta:
        left = [each.value for each in meta.memories("unit")]
    assert sum("shares" in each for each in left) == 1, "of the newest version"


def test_columns_that_others_typed_stay_with_their_version(stores: Stores, files: Any) -> None:
    def late(row: Row) -> Row:
        return {"id": row["id"], "note": "late" if row["id"] >= 300 else None}

    made = data.prepare(stores, "d", files(), map=late, **HOW)
    forgotten(stores, unfinished_seconds=0.0)
    with stores.meta.read() as meta:
        left = [each.value for each in meta.memories("unit")]
        maps = len(meta.runs())
    assert sum("of" in each for each in left) == 3
    again = data.prepare(stores, "d", files(), map=late, shuffle=1, **HOW)
    assert (again.reused, again.version.version) == (False, made.version.version + 1)
    with stores.meta.read() as meta:
        assert len(meta.runs()) == maps, "no unit ran"


def test_an_unfinished_preparation_is_continued_for_a_while(stores: Stores, files: Any) -> None:
    mended = False

    def picky(row: Row) -> Row:
        if row["id"] == 305 and not mended:
            raise ValueError("not yet")
        return row

    with pytest.raises(UserCodeFailed):
        data.prepare(stores, "d", files(), map=picky, **HOW)
    assert forgotten(stores) != set(), "of the units before it at least the first"
    assert starts(stores, files(), [double]) == {0: 4}
    assert forgotten(stores, unfinished_seconds=0.0) == set()
    with stores.meta.read() as meta:
        assert [meta.memories(kind) for kind in ("unit", "rows", "digests")] == [[], [], []]
    mended = True
    made = data.prepare(stores, "d", files(), map=picky, **HOW)
    assert made.version.summary["rows"] == 80


@pytest.mark.faults
def test_what_a_killed_preparation_held_goes_and_its_owner_with_it(
    stores: Stores, files: Any, in_child: Callable[..., int]
) -> None:
    def deadly(row: Row) -> Row:
        if row["id"] == 305:
            os.kill(os.getpid(), signal.SIGKILL)
        return row

    home = stores.layout.root

    def work() -> None:
        with opened(home) as mine:
            data.prepare(mine, "d", files(), map=deadly, **HOW)

    assert in_child(work) != 0
    assert forgotten(stores) != set()
    with stores.meta.read() as meta:
        run = meta.newest_run("d", "prepare")
        assert run is not None
        lease = meta.find_lease(f"run/{run.id}")
    assert lease is not None
    a_day_from_now = -86400.0
    assert forgotten(stores, unfinished_seconds=a_day_from_now) == set()
    with stores.meta.read() as meta:
        assert meta.get_run(run.id).state == "stopped"
    with pytest.raises(Exception, match="moved on"), stores.meta.write(lease):
        pass
    assert data.prepare(stores, "d", files(), map=double, **HOW).version.summary["rows"] == 80


def numbers(log: str, count: int) -> Iterator[Row]:
    with Path(log).open("a") as file:
        file.write("called\n")
    yield from ({"id": i, "x": i} for i in range(count))


def test_rows_of_a_function_stay_while_a_version_is_made_of_them(
    stores: Stores, tmp_path: Path
) -> None:
    log = tmp_path / "log"

    def made(count: int, step: Any = double) -> data.Prepared:
        params = {"log": str(log), "count": count}
        return data.prepare(stores, "d", numbers, map=step, params=params, **HOW)

    for count in (10, 20):
        made(count)
    forgotten(stores, unfinished_seconds=0.0)
    made(20, shifted)
    assert log.read_text().count("called") == 4
    made(10, shifted)
    assert log.read_text().count("called") == 6


@pytest.mark.faults
def test_a_retention_killed_at_any_line_takes_nothing_and_is_made_up_for(
    stores: Stores, files: Any, in_child: Callable[..., int], chance: random.Random
) -> None:
    steps, home = [double, shifted], stores.layout.root
    for value in range(3):
        data.prepare(stores, "d", files(value), steps=steps, **HOW)

    def work() -> None:
        with opened(home) as mine:
            retire(mine, None, 0, grace_seconds=0)

    deaths = sum(
        in_child(work, die_at=chance.randrange(1, 250), part="penstock/home/") != 0
        for _ in range(6)
    )
    assert deaths >= 1
    left = forgotten(stores, unfinished_seconds=0.0)
    assert data.prepare(stores, "d", files(2), steps=steps, **HOW).reused
    assert starts(stores, files(2), [double, longer]) == {1: 4}
    assert forgotten(stores, unfinished_seconds=0.0) == left
    with stores.meta.read() as meta:
        assert [each.version for each in meta.versions("dataset", "d")] == [3]
        blobs = {m.value["blob"] for m in meta.memories("unit") if "blob" in m.value}
    assert len(blobs) == 8, "of the one version that is left: units and kept steps"
