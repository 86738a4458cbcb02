"""What is computed once is kept, whole or not at all, and never trusted unchecked."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from penstock.data.cache import space
from penstock.data.samples import Buckets, Pack, Stream, Windows, index, over
from penstock.data.samples.index import kept

TABLE = pa.table({"first": np.arange(1000)})


def counted(times: list[int]) -> pa.Table:
    times.append(1)
    return TABLE


def test_a_table_is_built_once_and_mapped_from_then_on(tmp_path: Path) -> None:
    built: list[int] = []
    for _ in range(3):
        assert kept(tmp_path, ["key", 1], lambda: counted(built)).equals(TABLE)
    assert len(built) == 1
    kept(tmp_path, ["key", 2], lambda: counted(built))
    assert len(built) == 2


def test_empty_tables_are_kept_too(tmp_path: Path) -> None:
    empty = pa.table({"first": pa.array([], pa.int64())})
    for _ in range(2):
        assert kept(tmp_path, "key", lambda: empty).num_rows == 0


def test_windows_packs_and_buckets_read_their_columns_only_once(
    tmp_path: Path, episodes: Any, memory: Any
) -> None:
    def opened() -> tuple[int, list[Any]]:
        base = episodes(6, 4)
        frames = episodes(6, 4)
        lists = memory({"tokens": [np.arange(3), np.arange(5)]})
        spec = Windows(history=2, pad="drop", streams={"s": Stream("s", tolerance=0.01)})
        made = [
            over(spec, base, streams={"s": frames}, folder=tmp_path),
            over(Pack(length=4), lists, folder=tmp_path),
            over(Buckets(), lists, folder=tmp_path),
        ]
        read = sum(sum(each.gathered.values()) for each in (base, frames, lists))
        return read, [each.gather(np.arange(len(each))) for each in made]

    first, batches = opened()
    again, same = opened()
    assert first > 0
    assert again == 0
    assert repr(batches) == repr(same)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_file_is_computed_anew(tmp_path: Path, damage: str, caplog: Any) -> None:
    kept(tmp_path, "key", lambda: TABLE)
    (path,) = tmp_path.glob("*.v1")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"flip": bytes(data), "cut": bytes(data[:-40]), "empty": b""}[damage])
    built: list[int] = []
    assert kept(tmp_path, "key", lambda: counted(built)).equals(TABLE)
    assert built == [1]
    assert "damaged" in caplog.text
    kept(tmp_path, "key", lambda: counted(built))
    assert built == [1]


@pytest.mark.faults
def test_killed_at_any_line_it_leaves_nothing_half_made(
    tmp_path: Path, in_child: Any, chance: random.Random
) -> None:
    for line in sorted(chance.sample(range(1, 60), 12)):
        folder = tmp_path / str(line)
        in_child(lambda f=folder: kept(f, "key", lambda: TABLE), line, "samples/index.py")
        for path in folder.glob("*.v1"):
            assert index._mapped(path) is not None
        assert kept(folder, "key", lambda: TABLE).equals(TABLE)
        assert not list(folder.glob("*.tmp"))


def test_where_nothing_can_be_kept_it_stays_in_memory(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "file").write_text("")
    assert kept(tmp_path / "file", "key", lambda: TABLE).equals(TABLE)
    assert "stays in memory" in caplog.text


@pytest.mark.root
def test_a_full_disk_leaves_it_in_memory(small_disk: Path, caplog: Any) -> None:
    big = pa.table({"x": np.arange(1 << 17)})
    assert kept(small_disk / "samples", "key", lambda: big).equals(big)
    assert "stays in memory" in caplog.text
    assert not list((small_disk / "samples").glob("*.tmp"))


def test_the_least_recently_opened_are_forgotten(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(space, "_MOST_INDEXES", 2)
    for number in range(2):
        kept(tmp_path, number, lambda: TABLE)
        for path in tmp_path.glob("*.v1"):
            os.utime(path, (number, number))
    kept(tmp_path, 0, lambda: TABLE)  # opened now
    kept(tmp_path, 2, lambda: TABLE)
    built: list[int] = []
    kept(tmp_path, 0, lambda: counted(built))
    assert (len(list(tmp_path.glob("*.v1"))), built) == (2, [])


def test_all_of_them_take_a_quarter_of_the_cache_at_most(tmp_path: Path, caplog: Any) -> None:
    folder = tmp_path / "samples"
    kept(folder, 0, lambda: TABLE)
    (one,) = folder.glob("*.v1")
    limit = tmp_path / "shards" / "limit"
    limit.parent.mkdir()
    limit.write_text(str(4 * 2 * one.stat().st_size))
    for number in range(1, 4):
        kept(folder, number, lambda: TABLE)
        assert len(list(folder.glob("*.v1"))) == 2
    assert not one.exists()  # the oldest went
    big = pa.table({"first": np.arange(3000)})
    assert kept(folder, "big", lambda: big).equals(big)
    assert "stays in memory" in caplog.text
    assert len(list(folder.glob("*.v1"))) == 2  # nothing went in vain


def test_an_error_while_building_keeps_nothing(tmp_path: Path) -> None:
    def fails() -> pa.Table:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        kept(tmp_path, "key", fails)
    assert not list(tmp_path.glob("*.v1"))
    assert kept(tmp_path, "key", lambda: TABLE).equals(TABLE)
