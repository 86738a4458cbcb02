"""`prepare`: a version once per content, all of it or nothing, and one sentence that says why."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.base.errors import BadInput, Damaged, DiskFull, NotFound, UserCodeFailed
from penstock.base.layout import Layout
from penstock.base.settings import load_settings
from penstock.data import Loader, Prepared, prepare, read_manifest, read_split
from penstock.jobs.stores import Stores, open_stores

SPLITS = {"train": 0.5, "test": 0.5}
calls: list[str] = []


def numbers(rows: int = 100, step: int = 1) -> Iterator[dict[str, Any]]:
    calls.append("numbers")
    for i in range(0, rows * step, step):
        yield {"id": i, "half": i / 2, "image": np.full((2, 2), i, np.uint8)}


def letters() -> list[dict[str, str]]:
    return [{"letter": letter} for letter in "abcdefghijklmnopqrstuvwxyz"]


def chancy() -> dict[str, Any]:
    return {"x": np.random.default_rng().random(50)}


def make_digits() -> dict[str, Any]:
    from sklearn.datasets import load_digits

    found = load_digits()
    return {"image": found.images.astype(np.float32), "label": found.target}


def versions(stores: Stores) -> list[str]:
    with stores.meta.read() as meta:
        return [each.reference for each in meta.versions("dataset")]


def events(stores: Stores, kind: str = "dataset.committed") -> list[dict[str, Any]]:
    with stores.meta.read() as meta:
        return [event.body for event in meta.events() if event.kind == kind]


def rows(stores: Stores, made: Prepared) -> int:
    return read_manifest(stores.blobs, made.version.digest).rows


def test_digits_become_a_version_with_splits_statistics_and_lineage(stores: Stores) -> None:
    made = prepare(stores, "digits", make_digits)
    assert (made.reference, made.reused) == ("digits@1", False)
    assert made.why == "running, because digits has no version yet"
    data = read_manifest(stores.blobs, made.version.digest)
    assert list(data.splits) == ["train", "validation", "test"]
    assert data.rows == 1797 == sum(made.version.summary["splits"].values())
    assert data.splits["train"].rows == pytest.approx(1258, abs=60)
    assert str(data.schema["image"]) == "float32[8, 8]"
    assert data.statistics["label"].counts == {
        str(i): int(n) for i, n in enumerate(np.bincount(make_digits()["label"]))
    }
    assert data.lineage.function.endswith(":make_digits")
    assert data.checks == {"keys": 1797, "no_duplicate_keys": True, "no_key_in_two_splits": True}
    keys = [
        read_split(stores.blobs, data, split, ["key"])["key"].to_pylist() for split in data.splits
    ]
    assert len(set().union(*keys)) == 1797


def test_the_version_and_its_event_are_one_commit(stores: Stores) -> None:
    made = prepare(stores, "digits", numbers, key="id", splits=SPLITS)
    (event,) = events(stores)
    assert event["digest"] == made.version.digest
    assert event["version"] == 1
    assert event["rows"] == 100
    data = read_manifest(stores.blobs, made.version.digest)
    with stores.meta.read() as meta:
        assert meta.referenced(data.refs) == set(data.refs)
        assert meta.oldest_pin() is None


def test_the_same_call_is_reused_and_says_so(stores: Stores) -> None:
    prepare(stores, "numbers", numbers, key="id", splits=SPLITS)
    calls.clear()
    again = prepare(stores, "numbers", numbers, key="id", splits=SPLITS)
    assert again.reused
    assert again.why == ("reused numbers@1, because function, parameters and inputs are unchanged")
    assert calls == []
    assert versions(stores) == ["numbers@1"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"params": {"rows": 50}}, "parameter rows changed from None to 50"),
        ({"splits": {"all": 1}}, "the splits changed"),
        ({"key": None}, "the key changed from id to content"),
        ({"sources": letters, "key": "letter"}, "the function is"),
    ],
)
def test_what_changed_is_told_and_makes_a_version(
    stores: Stores, change: dict[str, Any], why: str
) -> None:
    first = {"sources": numbers, "key": "id", "splits": SPLITS}
    prepare(stores, "data", **first)
    made = prepare(stores, "data", **first | change)
    assert (made.reference, made.reused) == ("data@2", False)
    assert made.why.startswith(f"running, because {why}")


def test_changed_code_is_named(stores: Stores, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from penstock.base.settings import load_settings\n"
        "from penstock.data import prepare\n"
        "from penstock.jobs.stores import open_stores\n"
        "from makers import make\n"
        "stores = open_stores(load_settings(home=Path(sys.argv[1])))\n"
        "made = prepare(stores, 'data', make, splits={'all': 1})\n"
        "print(made.reference, made.reused, made.why)\n"
    )
    (tmp_path / "script.py").write_text(script)

    def run(text: str) -> str:
        (tmp_path / "makers.py").write_text(text)
        command = [sys.executable, "-B", str(tmp_path / "script.py"), str(stores.layout.root)]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    code = (
        "def scale():\n    return 2\n"
        "def make():\n    return [{'x': scale() * i} for i in range(9)]\n"
    )
    assert "data@1 False running, because data has no version yet" in run(code)
    assert "data@1 True reused data@1" in run("# a comment\n" + code)
    assert "data@2 False running, because makers.scale changed" in run(code.replace("2", "3"))
    assert "data@3 True reused the rows of data@1 as data@3" in run(code)


def test_going_back_to_earlier_code_makes_its_rows_the_newest_without_running(
    stores: Stores,
) -> None:
    prepare(stores, "data", numbers, key="id", splits=SPLITS)
    prepare(stores, "data", numbers, key="id", splits=SPLITS, params={"rows": 50})
    calls.clear()
    back = prepare(stores, "data", numbers, key="id", splits=SPLITS)
    assert calls == []
    assert (back.reference, back.reused, rows(stores, back)) == ("data@3", True, 100)
    assert back.why.startswith("reused the rows of data@1 as data@3")
    again = prepare(stores, "data", numbers, key="id", splits=SPLITS)
    assert (again.reference, len(versions(stores))) == ("data@3", 3)


def test_another_name_gets_the_rows_without_running(stores: Stores) -> None:
    prepare(stores, "data", numbers, key="id", splits=SPLITS)
    calls.clear()
    other = prepare(stores, "team/data", numbers, key="id", splits=SPLITS)
    assert calls == []
    assert (other.reference, other.reused) == ("team/data@1", True)


def test_fresh_runs_and_equal_rows_stay_one_version(stores: Stores) -> None:
    prepare(stores, "data", numbers, key="id", splits=SPLITS)
    calls.clear()
    made = prepare(stores, "data", numbers, key="id", splits=SPLITS, fresh=True)
    assert calls == ["numbers"] * 2, "the second time for its first rows"
    assert (made.reference, made.reused) == ("data@1", False)
    assert "fresh=True" in made.why


def test_fresh_rows_that_differ_are_a_version_that_is_reused_from_then_on(stores: Stores) -> None:
    first = prepare(stores, "data", chancy, splits={"all": 1})
    second = prepare(stores, "data", chancy, splits={"all": 1}, fresh=True)
    assert (second.reference, second.reused) == ("data@2", False)
    assert second.version.digest != first.version.digest
    third = prepare(stores, "data", chancy, splits={"all": 1})
    assert (third.reference, third.reused) == ("data@2", True)


def test_a_producer_never_makes_two_versions(stores: Stores) -> None:
    first = prepare(stores, "data", chancy, splits={"all": 1}, producer="run/1")
    second = prepare(stores, "data", chancy, splits={"all": 1}, fresh=True, producer="run/1")
    assert second.version.digest == first.version.digest
    assert second.reused
    assert versions(stores) == ["data@1"]


def test_two_that_prepare_the_same_at_once_make_one_version(stores: Stores) -> None:
    settings = load_settings(home=stores.layout.root)
    ready, go = os.pipe()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            status = 70
            try:
                os.close(go)
                os.read(ready, 1)
                with open_stores(settings) as mine:
                    made = prepare(mine, "data", numbers, key="id", splits=SPLITS)
                    status = 0 if made.reference == "data@1" else 71
            finally:
                os._exit(status)
        children.append(child)
    os.close(go)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    os.close(ready)
    assert versions(stores) == ["data@1"]
    assert len(events(stores)) == 1


@pytest.mark.faults
def test_killed_on_any_line_nothing_half_made_is_seen(
    stores: Stores,
    chance: random.Random,
    in_child: Callable[..., int],
) -> None:
    settings = load_settings(home=stores.layout.root)

    def work() -> object:
        with open_stores(settings) as mine:
            return prepare(mine, "data", numbers, key="id", splits=SPLITS, fresh=True)

    deaths = 0
    for line in sorted(chance.randrange(1, 5000) for _ in range(8)):
        deaths += in_child(work, die_at=line, part="penstock/data/") != 0
        for reference in versions(stores):
            with stores.meta.read() as meta:
                version = meta.get_version("dataset", reference)
            data = read_manifest(stores.blobs, version.digest)
            assert (
                sum(read_split(stores.blobs, data, split).num_rows for split in data.splits) == 100
            )
    made = prepare(stores, "data", numbers, key="id", splits=SPLITS)
    assert rows(stores, made) == 100
    assert deaths >= 1
    assert len(events(stores)) == len(versions(stores)) == 1


def test_a_lost_shard_makes_it_run_again_and_heals_the_version(stores: Stores) -> None:
    made = prepare(stores, "data", numbers, key="id", splits=SPLITS)
    shard = read_manifest(stores.blobs, made.version.digest).shards[1]
    stores.blobs.condemn(shard.digest)
    stores.blobs.purge(shard.digest)
    again = prepare(stores, "data", numbers, key="id", splits=SPLITS)
    assert (again.reference, again.reused) == ("data@1", False)
    assert again.why.startswith("running, because data@1 has lost shard 0 of split test")
    stores.blobs.verify(shard.digest)


def test_fresh_heals_a_damaged_shard(stores: Stores) -> None:
    made = prepare(stores, "data", numbers, key="id", splits=SPLITS)
    data = read_manifest(stores.blobs, made.version.digest)
    path = stores.blobs.path(data.shards[0].digest)
    assert path is not None
    broken = bytearray(path.read_bytes())
    broken[50] ^= 1
    path.chmod(0o644)
    path.write_bytes(broken)
    with pytest.raises(Damaged, match="shard 0"):
        read_split(stores.blobs, data, "train")
    prepare(stores, "data", numbers, key="id", splits=SPLITS, fresh=True)
    assert read_split(stores.blobs, data, "train").num_rows == data.splits["train"].rows


# bad input: one clear error, and nothing is published


@pytest.fixture(autouse=True)
def nothing_is_pinned(stores: Stores) -> Iterator[None]:
    yield
    with stores.meta.read() as meta:
        assert meta.oldest_pin() is None


def refused(stores: Stores, function: Any, error: type = BadInput, **options: Any) -> Any:
    with pytest.raises(error) as caught:
        prepare(stores, "data", function, **options)
    assert versions(stores) == []
    assert events(stores) == []
    return caught.value


def no_rows() -> list[Any]:
    return []


def nothing() -> None:
    return None


def columns_without_rows() -> dict[str, Any]:
    return {"x": np.zeros(0)}


@pytest.mark.parametrize("function", [no_rows, columns_without_rows])
def test_no_rows_are_refused(stores: Stores, function: Any) -> None:
    assert "no rows" in refused(stores, function).what


def test_nothing_is_refused(stores: Stores) -> None:
    assert "NoneType" in refused(stores, nothing).what


def test_an_empty_split_is_refused_and_named(stores: Stores) -> None:
    error = refused(stores, letters, splits={"train": 0.999999, "rare": 0.000001})
    assert 'split "rare" got none of the 26 rows' in error.what


def twice() -> Iterator[dict[str, Any]]:
    for i in [0, 1, 2, 3, 1, 4, 1, 2]:
        yield {"id": i, "x": i}


def test_duplicate_keys_are_named_with_their_rows(stores: Stores) -> None:
    error = refused(stores, twice, key="id")
    assert "1 (rows 1, 4, 6); 2 (rows 2, 7)" in error.what
    assert error.facts["count"] == 2
    assert '"id"' in error.fix


def test_equal_rows_without_a_key_are_told_as_such(stores: Stores) -> None:
    error = refused(stores, twice)
    assert "equal in every column" in error.what
    assert "(rows 1, 4, 6)" in error.what


def mixed() -> Iterator[dict[str, Any]]:
    yield {"id": 0, "x": 1.5, "image": np.zeros((2, 2), np.uint8)}
    yield {"id": 1, "x": 2, "image": np.zeros((2, 3), np.uint8)}
    yield {"id": 2, "image": np.zeros((2, 2), np.float32), "more": 1}
    yield {"id": 3, "x": 3, "image": None}
    yield {"id": {}, "x": 0.5, "image": np.zeros((2, 2), np.uint8)}


def test_all_differences_of_mixed_rows_are_listed(stores: Stores) -> None:
    told = refused(stores, mixed, key="id").facts["differences"]
    assert set(told) == {
        '"x" is int64, not float64 (row 1 and 1 more)',
        '"image" is uint8[2, 3], not uint8[2, 2] (row 1)',
        '"x" is not there (row 2)',
        '"image" is float32[2, 2], not uint8[2, 2] (row 2)',
        '"more" is there, but not in the first row (row 2)',
        '"image" is missing, which a tensor cannot be (row 3)',
        '"id" is dict, which no column can have (row 4)',
    }


def raises_at_once() -> None:
    raise ValueError("the file is gone")


def raises_later() -> Iterator[dict[str, Any]]:
    yield from ({"id": i} for i in range(5000))
    raises_at_once()


@pytest.mark.parametrize("function", [raises_at_once, raises_later])
def test_a_function_that_raises_shows_its_own_traceback(stores: Stores, function: Any) -> None:
    error = refused(stores, function, UserCodeFailed, key="id")
    assert "ValueError" in error.what
    assert "the file is gone" in error.what
    assert error.facts["traceback"].count("File") == (1 if function is raises_at_once else 2)
    assert "penstock/data" not in error.facts["traceback"]


def test_a_key_function_that_raises_is_the_users_code_too(stores: Stores) -> None:
    def by_city(row: dict[str, Any]) -> Any:
        return row["city"]

    error = refused(stores, letters, UserCodeFailed, key=by_city)
    assert "KeyError" in error.what


def test_parameters_are_checked_before_the_function_is_called(stores: Stores) -> None:
    calls.clear()
    assert "unexpected keyword" in refused(stores, numbers, params={"row": 5}).what
    assert "cannot be kept" in refused(stores, numbers, params={"rows": object()}).what
    assert calls == []


@pytest.mark.parametrize("name", ["", "a:b", "../x", "a b"])
def test_a_name_that_no_reference_can_have_is_refused(stores: Stores, name: str) -> None:
    with pytest.raises(BadInput, match="dataset name"):
        prepare(stores, name, numbers)


def test_what_is_no_function_is_refused(stores: Stores) -> None:
    assert "not a function" in refused(stores, letters()).what


def with_a_key_column() -> list[dict[str, Any]]:
    return [{"key": i, "x": 1} for i in range(50)]


def test_a_column_named_key_is_the_key(stores: Stores) -> None:
    made = prepare(stores, "data", with_a_key_column)
    assert read_manifest(stores.blobs, made.version.digest).key == "key"
    with pytest.raises(BadInput, match='has a column "key"'):
        prepare(stores, "data", with_a_key_column, key=lambda row: row["x"])


def test_a_function_of_this_process_only_may_prepare_too(stores: Stores) -> None:
    made = prepare(stores, "data", lambda: [{"x": i} for i in range(50)])
    assert made.version.summary["rows"] == 50


@pytest.mark.root
def test_a_full_disk_publishes_nothing(tmp_path: Path, small_disk: Path, stores: Stores) -> None:
    with open_stores(
        load_settings(folder=tmp_path, home=stores.layout.root, blobs=f"file://{small_disk}")
    ) as full:
        refused(full, noise, DiskFull)


def noise() -> dict[str, Any]:
    return {"x": np.random.default_rng(0).random((2000, 100))}


def test_a_prepared_version_trains(stores: Stores) -> None:
    made = prepare(stores, "digits", make_digits)
    data = read_manifest(stores.blobs, made.version.digest)
    loader = Loader(stores.blobs, Layout(stores.layout.root), data, "train", batch_size=64)
    assert all(batch["image"].shape == (64, 8, 8) for batch in loader)
    with pytest.raises(NotFound):
        Loader(stores.blobs, stores.layout, data, "trian", batch_size=64)
