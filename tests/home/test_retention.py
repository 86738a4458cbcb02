"""Retention: the newest stay, and whatever anything refers to; the rest gives its room back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import data
from penstock.base.errors import Conflict, NotFound
from penstock.base.hashing import digest_bytes
from penstock.base.layout import Layout
from penstock.base.settings import Settings, load_settings
from penstock.blobs import open_blobs
from penstock.home import gc
from penstock.home.data import move_alias, tag
from penstock.home.local import LocalHome, open_home
from penstock.home.retention import retire
from penstock.jobs.stores import Stores
from penstock.meta import open_meta
from penstock.records import Run


@pytest.fixture(autouse=True)
def one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stores of these tests go by one clock, so that no margin hides a mistake."""
    monkeypatch.setattr(gc, "_SKEW", 0.0)


def _in_memory() -> Stores:
    at = Settings(home=Path("/nonexistent"))
    return Stores(at, Layout(at.home), open_meta("memory://"), open_blobs("memory://"))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[LocalHome]:
    opened = open_home(load_settings(folder=tmp_path, environment={}, home=tmp_path / "home"))
    yield opened
    opened.close()


def rows(number: int) -> Any:
    return {"id": list(range(50)), "x": [float(number)] * 50}


def _make(stores: Stores, count: int, name: str = "d") -> None:
    for number in range(count):
        data.prepare(stores, name, rows, params={"number": number}, key="id", splits={"all": 1})


def _left(stores: Stores, name: str = "d") -> list[int]:
    with stores.meta.read() as meta:
        return sorted(version.version for version in meta.versions("dataset", name))


def test_old_versions_that_nothing_needs_go_and_give_their_room_back(home: LocalHome) -> None:
    stores = home.stores
    _make(stores, 6)
    move_alias(stores, "d@1", "stable", None)
    tag(stores, "d@2", ["gold"], [])
    with stores.meta.write() as meta:
        meta.add_run(Run("run-1", "x", "train", "finished", {}, data={"d:all": "d@3:all"}))
    before = {stat.digest for stat in stores.blobs.list()}
    asked = retire(stores, "d", 1, dry_run=True, grace_seconds=0)
    assert (asked.dropped, _left(stores)) == (["d@4"], [1, 2, 3, 4, 5, 6])
    found = retire(stores, "d", 1, grace_seconds=0)
    assert found == asked
    assert found.kept == {
        "d@6": ["newest"],
        "d@3": ["run/run-1"],
        "d@2": ['tag "gold"'],
        "d@1": ["alias stable"],
    }
    assert _left(stores) == [1, 2, 3, 5, 6]
    for _ in range(2):
        gc.collect_garbage(stores, grace_seconds=0)
    after = {stat.digest for stat in stores.blobs.list()}
    assert len(after) < len(before)
    for number in _left(stores):
        assert home.verify_data(f"d@{number}").whole
    with pytest.raises(NotFound):
        home.dataset("d@4")


def _files(folder: Path, number: int) -> list[str]:
    """Four files of which one is another for every number."""
    folder.mkdir(exist_ok=True)
    for n in range(4):
        lines = [f'{{"id": {100 * n + i}, "x": {number if n == 0 else 0}}}' for i in range(20)]
        (folder / f"{n}.jsonl").write_text("\n".join(lines))
    return [str(folder / f"{n}.jsonl") for n in range(4)]


def double(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "x": row["x"] * 2 + 1}


def test_versions_made_of_files_give_their_room_back_too(home: LocalHome, tmp_path: Path) -> None:
    """Also what preparation remembers of their units, and what its runs hold."""
    stores = home.stores
    fresh = home_of(tmp_path / "fresh").stores
    for number in range(5):
        files = _files(tmp_path / "raw", number)
        for at in [stores] + [fresh] * (number == 4):
            data.prepare(at, "d", files, map=double, key="id", splits={"all": 1}, workers=0)
    before = sum(stat.size for stat in stores.blobs.list())
    assert len(retire(stores, None, 0, grace_seconds=0).dropped) == 4
    for _ in range(2):
        gc.collect_garbage(stores, grace_seconds=0)
        gc.collect_garbage(fresh, grace_seconds=0)
    left, least = ({stat.digest for stat in at.blobs.list()} for at in (stores, fresh))
    assert sum(stat.size for stat in stores.blobs.list()) < before / 2
    assert least <= left
    assert len(left) <= len(least), "no more than a home that never had the older versions"
    assert home.verify_data("d").whole
    again = data.prepare(
        stores, "d", _files(tmp_path / "raw", 4), map=double, key="id", splits={"all": 1}, workers=0
    )
    assert again.reused
    fresh.close()


def home_of(folder: Path) -> LocalHome:
    return open_home(load_settings(folder=folder.parent, environment={}, home=folder))


def test_what_was_dropped_is_made_again_under_a_new_number(home: LocalHome) -> None:
    stores = home.stores
    _make(stores, 2)
    assert retire(stores, None, 0, grace_seconds=0).dropped == ["d@1"]
    again = data.prepare(stores, "d", rows, params={"number": 0}, key="id", splits={"all": 1})
    assert (again.reference, again.reused) == ("d@3", False)


def test_the_young_are_left_alone(home: LocalHome) -> None:
    _make(home.stores, 3)
    found = home.retire_data("d", keep=0)
    assert found.dropped == []
    assert "young" in found.kept["d@1"]


def test_the_setting_says_how_many_stay(tmp_path: Path) -> None:
    at = load_settings(folder=tmp_path, environment={}, home=tmp_path / "h", keep_versions=7)
    home = open_home(at)
    assert home.retire_data().keep == 7
    assert home.retire_data(keep=2).keep == 2
    home.close()


def test_a_name_that_is_not_there_offers_the_nearest(home: LocalHome) -> None:
    _make(home.stores, 1)
    with pytest.raises(NotFound) as caught:
        home.retire_data("e")
    assert "There are: d." in caught.value.fix


_needs = st.sampled_from(["", "", "alias", "tag", "run"])


@settings(max_examples=40, deadline=None)
@given(needs=st.lists(_needs, min_size=1, max_size=9), keep=st.integers(0, 4))
def test_nothing_that_is_needed_ever_goes(needs: list[str], keep: int) -> None:
    stores = _in_memory()
    with stores.meta.write() as meta:
        for number, need in enumerate(needs, 1):
            blob = stores.blobs.put(b"%d" % number)
            meta.add_version("dataset", "d", blob, f"p/{number}", {}, [blob])
            if need == "alias":
                meta.move_alias("dataset", "d", f"a{number}", number, None)
            if need == "tag":
                meta.tag("dataset", "d", number, "gold")
            if need == "run":
                names = {"d": f"d@{number}:all"}
                meta.add_run(Run(f"run-{number}", "x", "train", "failed", {}, data=names))
    retire(stores, None, keep, grace_seconds=0)
    free = [n for n, need in enumerate(needs, 1) if not need and n != len(needs)]
    gone = set(free[: max(0, len(free) - keep)])
    assert _left(stores) == [n for n in range(1, len(needs) + 1) if n not in gone]
    for _ in range(2):
        gc.collect_garbage(stores, grace_seconds=0)
    for number in range(1, len(needs) + 1):
        assert stores.blobs.exists(digest_bytes(b"%d" % number)) == (number not in gone)


def test_an_alias_moves_only_from_where_it_is_expected(home: LocalHome) -> None:
    _make(home.stores, 2)
    assert home.move_data_alias("d@1", "stable", expect=0).revision == 1
    for stale in (0, 2):
        with pytest.raises(Conflict, match="points at d@1"):
            home.move_data_alias("d@2", "stable", expect=stale)
    assert home.move_data_alias("d@2", "stable", expect=1).version == 2
    assert home.move_data_alias("d@2", "stable").revision == 2, "it points there already"
    with pytest.raises(Conflict, match="is not there"):
        home.move_data_alias("d@2", "gold", expect=1)
    assert home.dataset("d@stable").version.version == 2


def test_tags_are_given_and_taken_together_or_not_at_all(home: LocalHome) -> None:
    _make(home.stores, 1)
    assert home.tag_data("d", ["b", "a"]) == ["a", "b"]
    with pytest.raises(Exception, match="cannot be a tag"):
        home.tag_data("d", ["c", ""])
    assert home.tag_data("d") == ["a", "b"]
    assert home.tag_data("d@1", ["c"], ["a", "never there"]) == ["b", "c"]
    assert home.datasets()[0].tags == home.dataset("d").tags == ["b", "c"]
