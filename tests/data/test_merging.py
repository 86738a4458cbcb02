"""Runs of rows in order of their keys, merged into shards: as if all had been sorted at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.base.errors import Damaged
from penstock.blobs import open_blobs
from penstock.data.at_rest import decode
from penstock.data.clusters.cuts import Layout
from penstock.data.clusters.merging import merged
from penstock.data.clusters.repeats import SHOWN, all_repeated, repeated
from penstock.data.clusters.sending import results
from penstock.data.clusters.shelving import shelved
from penstock.data.clusters.units import Task, write_units
from penstock.data.columns import Column
from penstock.data.preparation.splitting import rule_of
from penstock.data.preparation.tables import column_from
from penstock.data.types import mark_key

ALL = rule_of({"all": 1}, None).spec()
HALVES = rule_of({"train": 0.5, "test": 0.5}, None).spec()
BY_SPLIT = rule_of("split", None).spec()


def units(
    url: str, parts: list[pa.Table], rule: dict[str, Any] = ALL, chunks: int = 4
) -> list[dict[str, Any]]:
    task = Task("key", rule, {})
    blobs = open_blobs(url)
    return [
        unit
        for number, part in enumerate(parts)
        for unit in write_units(blobs, task, f"part {number}", [part], chunks)
    ]


def read(url: str, found: list[dict[str, Any]], step: int) -> tuple[dict[str, Any], Any]:
    """(split -> its shards, some with rows of the next; what is told of keys that come twice)."""
    layout = Layout(found, [])
    columns = [column_from(each) for each in found[0]["columns"]]
    blobs = open_blobs(url)
    shards, told = {}, []
    for heap in layout.heaps:
        for payload in heap.payloads(step):
            rows, twice = merged(blobs, payload, columns, "key", layout.schemas)
            shards.setdefault(heap.name, []).append(rows.slice(0, payload["rows"]))
            told.append(twice)
    return shards, all_repeated(told)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=30), min_size=1, max_size=5),
    st.sampled_from([1, 2, 8, 64]),
    st.integers(1, 9),
)
def test_shards_are_the_rows_in_order_however_they_came(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], step: int, chunks: int
) -> None:
    """Of equal keys the first come first; each key that comes twice is found."""
    url = f"file://{tmp_path_factory.mktemp('blobs')}"
    number = 0
    tables, rows = [], []
    for part in parts:
        places = range(number, number + len(part))
        tables.append(pa.table({"key": part, "place": places}))
        rows += zip(part, places, strict=True)
        number += len(part)
    shards, (named, count) = read(url, units(url, tables, ALL, chunks), step)
    sizes = [each.num_rows for each in shards["all"]]
    assert sizes[:-1] == [step] * (len(sizes) - 1) and 0 < sizes[-1] <= step
    found = pa.concat_tables(shards["all"])
    assert list(zip(*found.to_pydict().values(), strict=True)) == sorted(rows)
    times = {key: many for key, many in Counter(key for key, _ in rows).items() if many > 1}
    assert count == len(times) and len(named) == min(SHOWN, len(times))
    for key in named:
        assert int(key) in times


def test_a_shard_reads_little_more_than_its_own(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    chance = np.random.default_rng(3)
    keys = chance.permutation(1 << 16)
    tables = [pa.table({"key": part}) for part in np.split(keys, 8)]
    layout = Layout(units(url, tables, chunks=256), [])
    (heap,) = layout.heaps
    step = 1 << 12
    for payload in heap.payloads(step):
        rows = sum(len(sizes) * 32 for *_, sizes, _ in payload["runs"])
        assert step <= rows <= step + 8 * 2 * 32


KEYS: dict[str, pa.Array] = {
    "large text": pa.array(["b", "a", "c", "é"], pa.large_string()),
    "views": pa.array(["b", "a", "c", "é"], pa.string_view()),
    "dictionary": pa.array(["b", "a", "c", "é"]).dictionary_encode(),
    "bytes": pa.array([b"b", b"a", b"c", b"\xff"]),
    "beyond int64": pa.array([2**63 + 1, 2**63, 2**63 + 2, 2**64 - 1], pa.uint64()),
    "below zero": pa.array([-1, -5, 0, 7], pa.int16()),
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_every_kind_are_ordered(tmp_path: Path, kind: str) -> None:
    url = f"file://{tmp_path}"
    table = pa.table({"key": KEYS[kind], "x": [0, 1, 2, 3]})
    shards, _ = read(url, units(url, [table.slice(2), table.slice(0, 2)]), 3)
    assert [each["x"].to_pylist() for each in shards["all"]] == [[1, 0, 2], [3]]


def test_tensors_lists_and_gaps_go_with_their_rows(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    order = np.random.default_rng(1).permutation(50)
    image = pa.FixedShapeTensorArray.from_numpy_ndarray(
        np.ascontiguousarray(order[:, None, None] + np.zeros((1, 2, 3), "f4"))
    )
    lists = [None if i % 7 == 0 else list(range(i % 5)) for i in order.tolist()]
    table = pa.table(
        {
            "key": order,
            "image": image,
            "list": pa.array(lists, pa.list_(pa.int32())),
            "text": [None if i % 3 else f"t{i}" for i in order.tolist()],
            "flag": [None if i % 4 == 0 else bool(i % 2) for i in order.tolist()],
        }
    )
    parts = [table.slice(0, 20), table.slice(20, 5), table.slice(25)]
    shards, (_, count) = read(url, units(url, parts), 16)
    found = pa.concat_tables(shards["all"])
    assert count == 0 and found.to_pydict() == table.sort_by("key").to_pydict()


def test_each_split_is_in_order(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    keys = np.random.default_rng(2).permutation(300)
    found = units(url, [pa.table({"key": part}) for part in np.split(keys, 3)], HALVES)
    assert all(each["keys"] is None for each in found)
    shards, _ = read(url, found, 64)
    both = {name: pa.concat_tables(each)["key"].to_pylist() for name, each in shards.items()}
    assert set(both) == {"train", "test"} and all(len(each) > 100 for each in both.values())
    assert all(each == sorted(each) for each in both.values())
    assert sorted(both["train"] + both["test"]) == list(range(300))


def test_a_key_in_two_splits_is_found_in_the_keys_alone(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    table = pa.table({"key": [3, 1, 2, 3], "split": ["a", "a", "b", "b"]})
    found = units(url, [table.slice(0, 2), table.slice(2)], BY_SPLIT)
    _, (_, count) = read(url, found, 64)
    assert count == 0
    keys = Layout(found, []).keys
    assert keys is not None
    (payload,) = keys.payloads(64)
    shared = {
        "columns": found[0]["columns"],
        "key": "key",
        "schemas": Layout(found, []).schemas,
    }
    task = Task("key", BY_SPLIT, {}).put(open_blobs(url))
    (told,) = results([shelved(url, task, {**payload, "keys": True}, shared)])
    assert all_repeated([told["repeated"]]) == ({"3": ["part 0", "part 1"]}, 1)


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.data())
def test_as_many_come_twice_as_there_are_however_the_rows_are_cut(
    values: list[int], data: st.DataObject
) -> None:
    keys = sorted(values)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(keys)), max_size=6)) | {0, len(keys)})
    told = []
    for start, end in pairwise(cuts):
        part = pa.array(keys[start:end], pa.int64())
        told.append(repeated(part, lambda row, start=start: f"row {start + row}"))
    named, count = all_repeated(told)
    times = {key: number for key, number in Counter(keys).items() if number > 1}
    assert count == len(times)
    assert len(named) == min(SHOWN, len(times))
    for key, shown in named.items():
        rows = [f"row {at}" for at, each in enumerate(keys) if each == int(key)]
        assert len(shown) == min(len(rows), SHOWN + 1)
        assert set(shown[:SHOWN]) <= set(rows)
        assert shown[SHOWN:] == ["…"] * (len(rows) > SHOWN)


def test_bytes_are_named_in_hexadecimal() -> None:
    told = repeated(pa.array([b"\x01", b"\x01", b"\x02"]), str)
    assert told["count"] == 1 and told["shown"] == [["01", ["0", "1"]]]
    assert (told["low"], told["high"], told["ends"]) == ("01", "02", [True, False])
    assert repeated(pa.array(["a"]), str)["count"] == 0


def test_a_unit_that_changed_before_its_shard_is_made_is_damage(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    blobs = open_blobs(url)
    rows = 2048
    table = pa.table({"key": np.arange(rows), "x": np.arange(rows) / 2})
    (unit,) = units(url, [table], chunks=64)
    columns = mark_key([Column(c["name"], c["kind"], c["dtype"]) for c in unit["columns"]], "key")
    layout = Layout([unit], [])
    shared = {
        "columns": [asdict(each) for each in columns],
        "key": "key",
        "schemas": layout.schemas,
    }
    first, second = layout.heaps[0].payloads(1024)
    digest = Task("key", ALL, {}).put(blobs)

    path = blobs.path(unit["blob"])
    assert path is not None
    good = path.read_bytes()
    path.chmod(0o644)
    at = good.index(np.float64(500.5).tobytes())
    path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    with pytest.raises(Damaged, match="is damaged"):
        results([shelved(url, digest, first, shared)])
    for torn in (good[: len(good) // 2], good[:1], b""):
        path.write_bytes(torn)
        with pytest.raises(Damaged, match="it ends at byte"):
            results([shelved(url, digest, second, shared)])
    path.write_bytes(good)
    made = results([shelved(url, digest, each, shared) for each in (first, second)])
    found = [decode(blobs.get(each["digest"]), each["format"], each["digest"]) for each in made]
    assert pa.concat_tables(found)["x"].to_pylist() == table["x"].to_pylist()
