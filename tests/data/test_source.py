"""Gathering rows: one array over all shards, each value copied once, nothing touched unopened."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.base.errors import BadInput
from penstock.base.layout import Layout
from penstock.blobs import Blobs
from penstock.blobs.local import LocalBlobs
from penstock.data import Loader, Manifest, ShardSource
from penstock.data import pieces as pieces_module
from penstock.data import strips as strips_module
from penstock.data.columns import Column
from penstock.data.strips import shifts

ROWS = 500


def rows_of_every_kind(rows: int = ROWS) -> list[dict[str, Any]]:
    return [
        {
            "id": i,
            "x": np.full((3, 5), i, "f4"),
            "flag": i % 3 == 0,
            "mask": np.arange(4) < i % 5,
            "gap": None if i % 7 == 0 else i / 2,
            "text": None if i % 5 == 0 else f"t{i}é",
            "bytes": os.urandom(0) if i % 4 == 0 else bytes([i % 256]) * (i % 9),
            "when": datetime(2024, 1, 1 + i % 28),
            "list": np.arange(i % 4, dtype=np.int32),
        }
        for i in range(rows)
    ]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
    if isinstance(one, list):
        return all(map(same, one, other))
    return bool(one == other or (one != one and other != other))  # NaN is itself here


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("source")


class Remote(LocalBlobs):
    """A store whose files are not ours to map."""

    def path(self, digest: str) -> Path | None:
        return None


@pytest.fixture(scope="module", params=["in place", "cached"])
def kept(request: Any, home: Path) -> Blobs:
    return LocalBlobs(home / "blobs") if request.param == "in place" else Remote(home / "blobs")


@pytest.fixture(scope="module")
def data(make: Any, kept: Blobs) -> Manifest:
    return make(kept, rows_of_every_kind(), shard_rows=37)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def source(kept: Blobs, home: Path, data: Manifest) -> ShardSource:
    return ShardSource(kept, Layout(home), data, "all")


@given(rows=st.lists(st.integers(0, ROWS - 1), max_size=60))
def test_rows_of_every_kind_come_as_they_went(source: ShardSource, rows: list[int]) -> None:
    wanted = rows_of_every_kind()
    found = source.gather(np.array(rows, np.int64))
    assert list(found) == [column.name for column in source.columns]
    for name, values in found.items():
        kept = [wanted[row][name] for row in rows]
        if name == "gap":
            kept = [np.nan if value is None else value for value in kept]
        assert len(values) == len(rows)
        assert same(values if isinstance(values, list) else list(values), kept), name


def test_without_strips_the_rows_are_the_same(
    kept: Blobs, home: Path, data: Manifest, source: ShardSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(12, "no addresses")

    monkeypatch.setattr(pieces_module, "Strip", none)
    other = ShardSource(kept, Layout(home), data, "all")
    rows = np.random.default_rng(0).integers(0, ROWS, 300)
    one, two = source.gather(rows), other.gather(rows)
    assert all(same(one[name], two[name]) for name in one)


def test_rows_that_are_not_there_are_refused_and_touch_nothing(
    kept: Blobs, home: Path, data: Manifest
) -> None:
    source = ShardSource(kept, Layout(home), data, "all", columns=["x"])
    for wrong in ([-1], [ROWS], [0, 2**62], [-(2**63)]):
        with pytest.raises(IndexError):
            source.gather(np.array(wrong))
        assert not source._is_open.any()


@given(
    counts=st.lists(st.integers(1, 9000), min_size=1, max_size=40),
    width=st.sampled_from([1, 2, 4, 8, 12, 40, 4100, 1 << 20, 100_001]),
)
def test_every_shard_starts_at_a_page_and_none_overlap(counts: list[int], width: int) -> None:
    rows = np.array(counts)
    column = Column("x", "tensor", "uint8", (width,))
    shift = shifts(column, rows)
    moved = np.zeros(len(rows), np.int64) if shift is None else shift
    starts = np.cumsum(rows) - rows + moved
    assert not (starts * width % 4096).any()
    assert (starts[1:] >= (starts + rows)[:-1]).all()


def test_shards_as_penstock_cuts_them_need_no_shift() -> None:
    for column in (Column("x", "tensor", "float32", (32,)), Column("y", "number", "int64")):
        assert shifts(column, np.array([1 << 18] * 9 + [77])) is None


@pytest.fixture
def large(make: Any, blobs: Blobs) -> Manifest:
    """8 shards of 2 MB: tensors and bytes."""
    rows = 4096
    x = np.arange(rows)[:, None] + np.zeros((1, 512), np.int32)
    photos = [bytes([i % 256]) * 2048 for i in range(rows)]
    columns = {"id": np.arange(rows), "x": x.astype(np.int32), "photo": photos}
    return make(blobs, columns, shard_rows=512)  # type: ignore[no-any-return]


def at_rest() -> int:
    """Bytes that Arrow holds, once no thread of an earlier test reads any more."""
    for _ in range(100):
        held = pa.total_allocated_bytes()
        time.sleep(0.02)
        if pa.total_allocated_bytes() == held:
            break
    return held


def allocated(work: Callable[[], object]) -> tuple[int, int]:
    """Most bytes that Python and NumPy, and that Arrow, held for `work` at once. In a process of
    its own: native threads that end while tracemalloc is switched make it crash."""
    before = at_rest()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1], pa.total_allocated_bytes() - before
    finally:
        tracemalloc.stop()


def test_every_value_is_copied_once(
    large: Manifest, blobs: Blobs, layout: Layout, tmp_path: Path, in_child: Callable[..., int]
) -> None:
    rows = np.random.default_rng(0).permutation(4096)[:1000]
    told = tmp_path / "told"

    def measure() -> None:
        found = []
        for column, size in (("x", 1000 * 2048), ("photo", 1000 * (2048 + 33))):
            source = ShardSource(blobs, layout, large, "all", columns=[column])
            found += [(size, *allocated(lambda: source.gather(rows))) for _ in range(2)]  # noqa: B023
            source.close()
        told.write_text(json.dumps(found))

    assert in_child(measure) == 0
    measured = json.loads(told.read_text())
    assert len(measured) == 4  # each column cold, and open
    for size, python, arrow in measured:
        assert python < 1.3 * size + 200_000
        assert arrow <= 0


def test_a_batch_outlives_its_source(large: Manifest, blobs: Blobs, layout: Layout) -> None:
    source = ShardSource(blobs, layout, large, "all")
    batch = source.gather(np.array([4000, 3]))
    source.close()
    assert batch["x"][:, 5].tolist() == [4000, 3]
    assert batch["photo"] == [bytes([4000 % 256]) * 2048, b"\3" * 2048]
    with pytest.raises(BadInput, match="closed"):
        source.gather(np.array([0]))


def files_open() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def maps_of(word: str) -> int:
    return Path("/proc/self/maps").read_text().count(word)


def test_closing_leaves_no_map_no_file_and_no_thread(
    large: Manifest, blobs: Blobs, layout: Layout, tmp_path: Path
) -> None:
    files, threads = files_open(), threading.active_count()
    source = ShardSource(blobs, layout, large, "all")
    source.ahead(np.arange(4096))
    source.gather(np.arange(0, 4096, 100))
    assert maps_of(str(tmp_path)) >= 8
    assert files_open() <= files + 1
    source.close()
    source.close()
    assert maps_of(str(tmp_path)) == 0
    assert (files_open(), threading.active_count()) == (files, threads)


def test_a_source_that_is_dropped_lets_go_too(
    large: Manifest, blobs: Blobs, layout: Layout, tmp_path: Path
) -> None:
    ShardSource(blobs, layout, large, "all").gather(np.arange(0, 4096, 100))
    assert maps_of(str(tmp_path)) == 0


def test_what_does_not_fit_is_closed_by_its_last_use(
    large: Manifest, blobs: Blobs, layout: Layout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("penstock.data.source._MOST_MAPS", 0)  # so that 16 may be open
    rows = np.random.default_rng(0).permutation(4096)
    table = large.shards.table.slice(0, 1)
    assert table.num_rows == 1
    source = ShardSource(blobs, layout, large, "all", columns=["x"])
    monkeypatch.setattr(ShardSource, "_most_open", 3)
    for at in range(0, 4096, 64):
        batch = np.sort(rows[at : at + 64]) // 512 * 512 if at % 128 else np.arange(at, at + 64)
        assert np.array_equal(source.gather(batch)["x"][:, 0], batch)
    assert source._is_open.sum() <= 8
    source.gather(np.arange(10))
    assert source._is_open.sum() <= 3
    assert source._is_open[0]


def test_threads_gather_while_shards_come_and_go(
    large: Manifest, blobs: Blobs, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardSource, "_most_open", 2)
    source = ShardSource(blobs, layout, large, "all", columns=["x"])
    wrong: list[object] = []

    def work(seed: int) -> None:
        chance = np.random.default_rng(seed)
        for _ in range(150):
            rows = chance.integers(0, 512, 20) + 512 * chance.integers(0, 8)
            if not np.array_equal(source.gather(rows)["x"][:, 511], rows):
                wrong.append(rows)
            source.done(rows)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_batch_that_another_thread_overtook_keeps_its_shards(
    large: Manifest, blobs: Blobs, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardSource, "_most_open", 1)
    source = ShardSource(blobs, layout, large, "all", columns=["x"])
    make_room, gather = source._make_room, source._pieces.gather

    def overtaken(now: int) -> None:
        monkeypatch.setattr(source, "_make_room", make_room)
        other = threading.Thread(target=source.gather, args=(np.arange(3000, 3010),))
        other.start()
        other.join()
        make_room(now)

    def safely(rows: Any, shards: Any, names: Any) -> Any:
        assert source._is_open[shards].all(), "reading there would end the process"
        return gather(rows, shards, names)

    monkeypatch.setattr(source, "_make_room", overtaken)
    monkeypatch.setattr(source._pieces, "gather", safely)
    assert source.gather(np.arange(10))["x"][9, 0] == 9


def test_a_forked_child_gathers_on_its_own(
    large: Manifest, blobs: Blobs, layout: Layout, in_child: Callable[..., int]
) -> None:
    source = ShardSource(blobs, layout, large, "all")
    source.ahead(np.arange(600))
    source.gather(np.arange(10))

    def work() -> None:
        source.ahead(np.arange(4096))
        assert source.gather(np.arange(0, 4096, 300))["x"][1, 0] == 300
        source.close()

    assert in_child(work) == 0
    assert source.gather(np.arange(0, 4096, 300))["x"][2, 0] == 600


def test_large_pieces_keep_to_the_pages_that_the_kernel_maps_at_once(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    x = np.zeros((4096, 1025), np.int32)
    data = make(blobs, {"id": np.arange(4096), "x": x}, shard_rows=2048)  # 8.4 MB each
    source = ShardSource(blobs, layout, data, "all", columns=["x"])
    source.gather(np.array([0, 4095]))
    strip = source._pieces._strips["x"]
    assert strip is not None
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split()
        start = int(fields[0].split("-")[0], 16)
        if strip._reserved <= start < strip._end and len(fields) > 5:
            assert (start - int(fields[2], 16)) % strips_module._HUGE == 0


def test_a_process_that_ends_with_shards_on_their_way_ends(
    large: Manifest, blobs: Blobs, layout: Layout
) -> None:
    code = (
        "from pathlib import Path\n"
        "from penstock.base.layout import Layout; from penstock.blobs import open_blobs\n"
        "from penstock.data import Loader, ShardSource, read_manifest\n"
        f"blobs, layout = open_blobs({blobs.url!r}), Layout(Path({str(layout.root)!r}))\n"
        f"data = read_manifest(blobs, {large.digest!r})\n"
        "source = ShardSource(blobs, layout, data, 'all')\n"
        "source._want(range(8))\n"
        "batches = iter(Loader(blobs, layout, data, 'all', batch_size=16))\n"
        "next(batches)\n"
    )
    for _ in range(4):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.faults
@pytest.mark.parametrize("part", ["data/source.py", "data/pipeline/"])
def test_a_reader_killed_on_any_line_leaves_nothing_that_the_next_one_minds(
    make: Any,
    tmp_path: Path,
    chance: random.Random,
    in_child: Callable[..., int],
    part: str,
) -> None:
    blobs = Remote(tmp_path / "blobs")
    data = make(blobs, rows_of_every_kind(100), shard_rows=20)

    def read(home: Path) -> list[Any]:
        loader = Loader(
            blobs, Layout(home), data, "all", batch_size=9, threads=0, filter=is_even,
            map=with_noise, columns=["id", "x", "text"],
        )  # fmt: skip
        found = [(each["id"].tolist(), each["noise"].tolist(), each["text"]) for each in loader]
        loader.close()
        return found

    wanted = read(tmp_path / "whole")
    deaths = 0
    for line in sorted({1, 2, 3, *(chance.randrange(4, 450) for _ in range(8))}):
        deaths += in_child(lambda: read(tmp_path / "home"), die_at=line, part=part) != 0
        assert read(tmp_path / "home") == wanted
        assert not list((tmp_path / "home").rglob("*.tmp"))
        for made in (tmp_path / "home/cache").rglob("*.[av]*"):
            made.unlink()  # the next one has to make it all
    assert deaths >= 5


def is_even(sample: Any) -> bool:
    return bool(sample["id"] % 2 == 0)


def with_noise(sample: Any, rng: Any) -> Any:
    return {**sample, "noise": rng.random(2)}
