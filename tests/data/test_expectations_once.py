"""Before it is read a version is held against expectations, once."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.base.errors import BadInput, Damaged, Refused
from penstock.blobs import Blobs, open_blobs
from penstock.data import prepare, read_manifest
from penstock.data.expectations import Expectations, check, hold, refuse
from penstock.data.loader import Loader

NOBODY = open_blobs("memory://")  # a store without a row

QUARANTINE = '[columns.name]\npattern = { is = "[02468]$", severity = "quarantine" }\n'


@pytest.fixture(scope="module")
def store() -> Blobs:
    return open_blobs("memory://")


@pytest.fixture(scope="module")
def version(make: Any, store: Blobs) -> Any:
    """A version of 100 rows in two splits; every second name ends with an odd digit."""
    return make(store, splits={"train": 0.8, "test": 0.2}, shard_rows=16)


def test_what_schema_and_statistics_tell_costs_no_row(version: Any, tmp_path: Path) -> None:
    rules = Expectations.from_toml(
        "[dataset]\nrows = { least = 10 }\n[leakage]\nkey = {}\n"
        "[columns.image]\nrange = { least = 0, most = 99 }\nfinite = { most = 0.0 }\n"
    )
    held = hold(NOBODY, version, rules, tmp_path, "things@1")
    assert (held.violations, held.by) == ([], "statistics")
    assert not list(tmp_path.iterdir())


def test_what_they_refuse_as_a_whole_costs_no_row(version: Any) -> None:
    rules = Expectations.from_toml(
        QUARANTINE + '[dataset]\nrows = { least = 101, severity = "refuse" }\n'
    )
    held = hold(NOBODY, version, rules, None, "things@1")
    with pytest.raises(Refused, match="there are 100, expected 101 to ∞"):
        refuse(held.violations, "dataset things@1")


@pytest.mark.parametrize(
    "rule",
    [
        QUARANTINE,
        "[columns.image]\nrange = { most = 50 }\n",  # statistics see it, rows say where
        "[columns.id]\nrange = { most = 50 }\n",  # the key has no statistics
        "[leakage]\ncontent = {}\n",
    ],
)
def test_what_only_rows_tell_is_read_once_and_remembered(
    version: Any, store: Blobs, tmp_path: Path, rule: str
) -> None:
    rules = Expectations.from_toml(rule)
    first = hold(store, version, rules, tmp_path, "things@1")
    again = hold(NOBODY, version, rules, tmp_path, "things@1")
    assert first.by == again.by == "rows"
    assert first.violations == again.violations == check(store, version, rules)
    assert all(each.rows and each.samples for each in first.violations)
    assert [*first.aside] == [*again.aside]
    with pytest.raises(Damaged, match="is gone"):  # another file is another question
        hold(NOBODY, version, Expectations.from_toml(rule + "[dataset]\n# \nrows = { least = 1 }"),
             tmp_path, "things@1")  # fmt: skip


def test_rows_that_quarantine_names_are_told_by_split(
    version: Any, store: Blobs, layout: Any
) -> None:
    held = hold(store, version, Expectations.from_toml(QUARANTINE), None, "things@1")
    assert sum(map(len, held.aside.values())) == 50
    for split, rows in held.aside.items():
        whole = Loader(store, layout, version, split, batch_size=10, shuffle=False)
        ids = np.concatenate([batch["id"] for batch in whole])
        assert ids[rows].tolist() == [each for each in ids if each % 2]
        whole.close()


def test_a_version_made_with_the_same_file_is_not_looked_at_again(stores: Any) -> None:
    rules = Expectations.from_toml(
        QUARANTINE + '[columns.x]\nrange = { most = 8, severity = "warn" }\n'
    )
    rows = {"id": np.arange(20), "x": np.arange(20), "name": [f"n{i}" for i in range(20)]}
    made = prepare(stores, "things", lambda: rows, key="id", splits={"all": 1}, expect=rules)
    manifest = read_manifest(stores.blobs, made.version.digest)
    assert manifest.rows == 10
    held = hold(NOBODY, manifest, rules, None, "things@1")
    assert held.by == "note"
    assert [each.expectation.name for each in held.violations] == ["columns.x.range"]
    assert not held.aside  # what quarantine named is not there any more


def test_rows_set_aside_are_in_no_batch_at_any_world_size_and_no_filter_sees_them(
    version: Any, store: Blobs, layout: Any
) -> None:
    held = hold(store, version, Expectations.from_toml(QUARANTINE), None, "things@1")
    aside = {f"{version.split('train').digest}/train": held.aside["train"]}

    def read(world: int, **options: Any) -> tuple[list[list[int]], int]:
        loaders = [
            Loader(store, layout, version, "train", batch_size=4, seed=3, epochs=2, aside=aside,
                   rank=rank, world_size=world, **options)
            for rank in range(world)
        ]  # fmt: skip
        parts = [[batch["id"].tolist() for batch in loader] for loader in loaders]
        order = loaders[0].state()["order"]
        for loader in loaders:
            loader.close()
        return [[*chain(*batch)] for batch in zip(*parts, strict=True)], order

    alone, order = read(1)
    assert read(2) == (alone, order)
    assert alone and all(each % 2 == 0 for batch in alone for each in batch)

    def small(sample: dict[str, Any]) -> bool:
        assert sample["id"] % 2 == 0
        return bool(sample["id"] < 60)

    chosen, other = read(2, filter=small)
    assert chosen and other != order
    assert all(each < 60 for batch in chosen for each in batch)


def test_a_split_of_which_nothing_is_left_is_refused(
    version: Any, store: Blobs, layout: Any
) -> None:
    rows = version.split("test").rows
    aside = {f"{version.split('test').digest}/test": np.arange(rows)}
    with pytest.raises(BadInput, match=f"all {rows} rows are set aside"):
        Loader(store, layout, version, "test", batch_size=1, aside=aside)
