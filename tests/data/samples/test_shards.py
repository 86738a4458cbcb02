"""Samples over the shards of real versions, read by the loader: resumed, sharded, damaged."""

from __future__ import annotations

import datetime as dt
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.base.errors import Damaged
from penstock.base.layout import Layout
from penstock.blobs import Blobs
from penstock.data import Loader, ShardSource
from penstock.data.pipeline.opening import Sampled, Shards
from penstock.data.samples import Buckets, Pack, Stream, Windows, over

LENGTHS = [9, 1, 14, 6, 11, 20, 3]


@pytest.fixture
def sources(make: Any, blobs: Blobs, layout: Layout) -> Any:
    """How to open the arm at 10 Hz, in shards of 7 rows, and its camera at 5 Hz, in shards of 4."""
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    def rows(hertz: int) -> Any:
        number = 0
        for episode, length in enumerate(LENGTHS):
            for row in range(max(1, length * hertz // 10)):
                at = start + dt.timedelta(hours=episode, seconds=row / hertz)
                yield {
                    "id": number,
                    "episode": f"e{episode}",
                    "time": at,
                    "x": np.array([number, hertz], np.float32),
                    "on": np.array([number % 2 == 0, True]),
                }
                number += 1

    arm = make(blobs, rows(10), shard_rows=7)
    camera = make(blobs, rows(5), shard_rows=4)

    def opening(which: str) -> Shards:
        digest = (arm if which == "arm" else camera).digest
        return Shards(blobs.url, str(layout.root), digest, "all")

    return opening


SPEC = Windows(
    history=3,
    horizon=2,
    streams={"camera": Stream("camera", history=2, rate=5, history_columns=["x", "on"])},
)


def windows(sources: Any, layout: Layout, spec: Windows = SPEC) -> Any:
    return sampled(sources, layout, spec).open()


def sampled(sources: Any, layout: Layout, spec: Windows = SPEC) -> Sampled:
    streams = {name: sources(name) for name in spec.streams}
    return Sampled(spec, sources("arm"), streams, layout.samples)


def plain(batch: dict[str, Any]) -> dict[str, Any]:
    return {k: v if isinstance(v, list) else v.tolist() for k, v in batch.items()}


def test_windows_over_shards_hold_their_episodes_rows(sources: Any, layout: Layout) -> None:
    source = windows(sources, layout)
    got = source.gather(np.arange(len(source)))
    assert len(source) == sum(LENGTHS)
    starts = np.cumsum([0, *LENGTHS])
    for number, name in enumerate(got["episode"]):
        first = starts[int(name[1:])]
        last = starts[int(name[1:]) + 1] - 1
        assert got["x"][number, :, 0].tolist() == [max(first, number - k) for k in (2, 1, 0)]
        assert got["x_ahead"][number, :, 0].tolist() == [number, min(last, number + 1)]
        assert (got["on"][number, :, 0] == (got["x"][number, :, 0] % 2 == 0)).all()
    assert got["x"].dtype == np.float32
    assert got["on"].dtype == bool
    newest = got["camera_x"][:, 1, 0]
    assert np.array_equal(got["camera_on"][:, 1, 0], newest % 2 == 0)
    assert {c.name for c in source.columns} == set(got)
    for column in source.columns:
        if column.fixed:
            assert (got[column.name].shape[1:], got[column.name].dtype) == (
                column.shape,
                np.dtype(column.dtype),
            )


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stop=st.integers(0, 14), ranks=st.sampled_from([1, 2, 4]))
def test_a_stopped_epoch_goes_on_exactly_at_any_number_of_ranks(
    sources: Any, layout: Layout, stop: int, ranks: int
) -> None:
    def loader(rank: int, world: int) -> Loader:
        source = windows(sources, layout)
        return Loader.over(source, batch_size=8, epochs=2, rank=rank, world_size=world)

    whole = [plain(batch)["time"] for batch in loader(0, 1)]
    head = loader(0, 1)
    first = [plain(batch)["time"] for batch in islice(head, stop)]
    parts = []
    for rank in range(ranks):
        rest = loader(rank, ranks)
        rest.load_state(head.state())
        parts.append([plain(batch)["time"] for batch in rest])
    joined = [list(chain(*same)) for same in zip(*parts, strict=True)]
    assert first + joined == whole
    assert len({tuple(map(str, each)) for each in whole}) == len(whole)


def test_every_window_comes_once_an_epoch(sources: Any, layout: Layout) -> None:
    loader = Loader.over(windows(sources, layout), batch_size=5, drop_last=False)
    seen = [(e, t) for b in loader for e, t in zip(b["episode"], b["time"], strict=True)]
    assert len(seen) == len(set(seen)) == sum(LENGTHS)


def test_the_index_is_kept_for_the_next_process(sources: Any, layout: Layout) -> None:
    first = windows(sources, layout)
    files = {path.name: path.stat().st_ino for path in layout.samples.glob("*.v1")}
    assert len(files) == 4  # episodes and ticks, of arm and camera
    again = windows(sources, layout)
    assert {path.name: path.stat().st_ino for path in layout.samples.glob("*.v1")} == files
    assert again.identity == first.identity


def test_a_damaged_shard_is_named(
    make: Any, blobs: Blobs, layout: Layout, damage: Any, episodes: Any
) -> None:
    data = {"id": np.arange(12), **episodes(7, 5).data}
    made = make(blobs, data, shard_rows=4)
    damage(made.shards[1].digest)
    with pytest.raises(Damaged, match='shard 1 of split "all"'):
        over(Windows(), ShardSource(blobs, layout, made, "all"))


def test_documents_and_buckets_over_shards(make: Any, blobs: Blobs, layout: Layout) -> None:
    lengths = np.random.default_rng(0).integers(0, 50, 200)
    documents = [
        {"id": i, "tokens": np.arange(n, dtype=np.int32) + 100 * i + 1, "name": f"d{i}"}
        for i, n in enumerate(lengths)
    ]
    made = make(blobs, as_lists(documents), shard_rows=30)

    def opened() -> ShardSource:
        return ShardSource(blobs, layout, made, "all")

    pack = over(Pack(length=32), opened(), folder=layout.samples)
    got = pack.gather(np.arange(len(pack)))
    tokens = got["tokens"][got["segment_ids"] > 0]
    assert sorted(tokens) == sorted(np.concatenate([each["tokens"] for each in documents]))
    assert got["tokens"].dtype == np.int32
    buckets = over(Buckets(), opened(), folder=layout.samples)
    loader = Loader.over(buckets, batch_size=10, shuffle=False)
    names = [name for batch in loader for name in batch["name"]]
    assert sorted(names) == sorted(each["name"] for each in documents)
    widths = [batch["tokens"].shape[1] for batch in loader]
    assert widths == sorted(widths)


def test_the_loader_shuffles_buckets_in_windows_and_resumes_them(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    lengths = np.random.default_rng(0).integers(1, 400, 2000)
    documents = [{"id": i, "tokens": np.zeros(n, np.int32)} for i, n in enumerate(lengths)]
    made = make(blobs, as_lists(documents), shard_rows=300)

    def loader() -> Loader:
        source = over(Buckets(batches=4), ShardSource(blobs, layout, made, "all"))
        return Loader.over(source, batch_size=20, epochs=2)

    whole = list(loader())
    places = sum(batch["pad_mask"].numel() for batch in whole)
    assert sum(int(batch["pad_mask"].sum()) for batch in whole) / places < 0.06
    ids = [batch["id"].tolist() for batch in whole]
    for epoch in (ids[:100], ids[100:]):
        assert sorted(chain(*epoch)) == list(range(2000))
    assert ids[:100] != ids[100:]
    head = loader()
    seen = [batch["id"].tolist() for batch in islice(head, 37)]
    rest = loader()
    rest.load_state(head.state())
    assert seen + [batch["id"].tolist() for batch in rest] == ids


@pytest.mark.torch
def test_workers_give_the_batches_of_threads(sources: Any, layout: Layout) -> None:
    opening = sampled(sources, layout)
    with_threads = [plain(batch) for batch in Loader.over(opening.open(), batch_size=8)]
    loader = Loader.over(opening.open(), batch_size=8, workers=2, opening=opening)
    try:
        assert [plain(batch) for batch in loader] == with_threads
    finally:
        loader.close()


def as_lists(documents: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    columns = {name: [each[name] for each in documents] for name in documents[0]}
    return pa.table(columns | {"tokens": pa.array(columns["tokens"], pa.list_(pa.int32()))})
