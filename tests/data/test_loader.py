"""Every sample exactly once, in an order that nothing but its specification moves."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.base.errors import BadInput, NotFound
from penstock.base.layout import Layout
from penstock.blobs import Blobs, open_blobs
from penstock.data import Loader, Manifest
from penstock.data.columns import Values

ROWS = 61
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def kept(home: Path) -> Blobs:
    return open_blobs(f"file://{home}/blobs")


@pytest.fixture(scope="module")
def data(make: Any, kept: Blobs) -> Manifest:
    return make(kept, rows=ROWS, shard_rows=17)


def ids(batches: Any) -> list[list[int]]:
    return [batch["id"].tolist() for batch in batches]


def flat(lists: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(lists))


def together(loaders: list[Loader], steps: int | None = None) -> list[list[int]]:
    """Global batches: the ranks' parts, joined in order of the ranks."""
    parts = [ids(islice(loader, steps)) for loader in loaders]
    return [flat(step) for step in zip(*parts, strict=True)]


@shared
@given(
    world_size=st.integers(1, 16),
    per_rank=st.integers(1, 3),
    seed=st.integers(0, 5),
    stop=st.integers(0, 60),
    then=st.integers(1, 16),
)
def test_every_sample_comes_once_per_epoch_at_any_world_size_and_stop(
    kept: Blobs,
    home: Path,
    data: Manifest,
    world_size: int,
    per_rank: int,
    seed: int,
    stop: int,
    then: int,
) -> None:
    batch = world_size * per_rank
    then = then if batch % then == 0 else world_size

    def ranks(count: int) -> list[Loader]:
        return [
            Loader(kept, Layout(home), data, "all", batch_size=batch, epochs=2, seed=seed,
                   rank=rank, world_size=count)
            for rank in range(count)
        ]  # fmt: skip

    first = ranks(world_size)
    stop = min(stop, len(first[0]))
    head = together(first, stop)
    states = [loader.state() for loader in first]
    assert all(state == states[0] for state in states)
    resumed = ranks(then)
    for loader in resumed:
        loader.load_state(states[0])
    batches = head + together(resumed)

    per_epoch = first[0].steps_per_epoch
    assert len(batches) == len(first[0]) == 2 * per_epoch
    for epoch in (batches[:per_epoch], batches[per_epoch:]):
        seen = flat(epoch)
        assert len(seen) == len(set(seen)) == ROWS // batch * batch
    assert batches == together(ranks(1))  # and the order does not depend on any of it


@shared
@given(
    world_size=st.integers(1, 8),
    batch=st.integers(1, 80),
    shuffle=st.booleans(),
)
def test_a_kept_last_batch_leaves_no_sample_out(
    kept: Blobs, home: Path, data: Manifest, world_size: int, batch: int, shuffle: bool
) -> None:
    batch = batch * world_size if shuffle else batch
    loaders = [
        Loader(kept, Layout(home), data, "all", batch_size=batch, shuffle=shuffle,
               drop_last=False, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]  # fmt: skip
    batches = together(loaders)
    assert sorted(flat(batches)) == list(range(ROWS))
    assert [len(each) for each in batches[:-1]] == [batch] * (len(batches) - 1)
    if not shuffle:
        assert flat(batches) == list(range(ROWS))


def test_the_order_does_not_depend_on_the_shards(make: Any, blobs: Blobs, layout: Layout) -> None:
    orders = [
        ids(Loader(blobs, layout, make(blobs, shard_rows=rows), "all", batch_size=7, epochs=2))
        for rows in (1, 9, 100)
    ]
    assert orders[0] == orders[1] == orders[2]


def test_the_order_does_not_depend_on_the_cache(make: Any, blobs: Blobs, layout: Layout) -> None:
    data = make(blobs, {"id": np.arange(100)}, shard_rows=9)
    cold = ids(Loader(blobs, layout, data, "all", batch_size=7))
    assert len(list(layout.shards.glob("v2/*.arrow"))) == 12
    assert ids(Loader(blobs, layout, data, "all", batch_size=7)) == cold


def test_the_order_does_not_depend_on_how_many_batches_are_made_at_once(
    make: Any, blobs: Blobs, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(blobs)
    wide = ids(Loader(blobs, layout, data, "all", batch_size=7, epochs=2))
    monkeypatch.setattr("penstock.data.pipeline.threads._CHUNK_BYTES", 1)
    assert ids(Loader(blobs, layout, data, "all", batch_size=7, epochs=2)) == wide


def test_other_content_of_the_same_length_has_another_order(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    other = make(blobs, {"id": np.arange(100), "x": np.zeros(100)})
    first = ids(Loader(blobs, layout, make(blobs), "all", batch_size=10))
    assert first != ids(Loader(blobs, layout, other, "all", batch_size=10))


def test_batches_are_tensors_of_their_columns_and_lists_of_words(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    for batch in Loader(blobs, layout, make(blobs, shard_rows=30), "all", batch_size=10):
        rows = batch["id"]
        assert rows.dtype == torch.int64
        assert batch["image"].dtype == torch.float32
        assert batch["image"].shape == (10, 2, 3)
        assert torch.equal(batch["image"][:, 1, 2], rows.float())
        assert batch["odd"].dtype == torch.bool
        assert torch.equal(batch["odd"], rows % 2 == 1)
        assert torch.equal(batch["mask"], (rows[:, None] >> torch.arange(4) & 1).bool())
        assert batch["name"] == [f"n{i}" for i in rows.tolist()]


def test_a_batch_may_be_changed_without_changing_the_data(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    loader = Loader(blobs, layout, make(blobs), "all", batch_size=100, shuffle=False)
    next(iter(loader))["image"].zero_()
    assert loader.example(100)["image"].sum() > 0


def test_only_the_asked_columns_are_gathered(make: Any, blobs: Blobs, layout: Layout) -> None:
    loader = Loader(blobs, layout, make(blobs), "all", batch_size=10, columns=["odd", "id"])
    assert list(next(iter(loader))) == ["id", "odd"]
    with pytest.raises(NotFound, match='no column "imag"') as error:
        Loader(blobs, layout, make(blobs), "all", batch_size=10, columns=["imag"])
    assert '"image"' in error.value.fix


def test_an_unknown_split_offers_the_nearest(make: Any, blobs: Blobs, layout: Layout) -> None:
    with pytest.raises(NotFound, match='no split "al"') as error:
        Loader(blobs, layout, make(blobs), "al", batch_size=10)
    assert '"all"' in error.value.fix


def test_ranks_without_a_row_of_the_last_batch_still_get_one(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    sizes = [
        [
            len(batch["id"])
            for batch in Loader(
                blobs, layout, make(blobs, rows=9), "all",
                batch_size=8, shuffle=False, rank=rank, world_size=3,
            )
        ]
        for rank in range(3)
    ]  # fmt: skip
    assert sizes == [[3, 1], [3, 0], [2, 0]]


def test_an_empty_part_keeps_dtypes_and_shapes(make: Any, blobs: Blobs, layout: Layout) -> None:
    loader = Loader(
        blobs, layout, make(blobs, rows=1), "all", batch_size=8, shuffle=False, rank=1, world_size=2
    )
    (batch,) = loader
    assert batch["image"].shape == (0, 2, 3)
    assert batch["image"].dtype == torch.float32
    assert batch["odd"].dtype == torch.bool
    assert batch["name"] == []


def test_a_batch_that_does_not_divide_by_the_ranks_is_refused(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    with pytest.raises(BadInput, match="10 does not divide by 3 ranks"):
        Loader(blobs, layout, make(blobs), "all", batch_size=10, world_size=3)


def test_an_example_and_a_sweep_do_not_move_the_loader(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    loader = Loader(blobs, layout, make(blobs), "all", batch_size=10, epochs=3)
    list(islice(loader, 4))
    before = loader.state()
    assert loader.example(2)["id"].tolist() == [0, 1]
    assert sorted(flat(ids(loader.sweep()))) == list(range(100))
    assert loader.state() == before
    rest = ids(loader)
    assert len(rest) == 26
    assert rest[:6] == ids(islice(loader.sweep(0), 4, 10))


def test_the_state_is_a_few_integers_that_count_the_batch_in_hand_as_done(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    loader = Loader(blobs, layout, make(blobs), "all", batch_size=10)
    next(iter(loader))
    state = loader.state()
    assert state["next"] == 1
    assert all(type(value) is int for value in state.values())


def test_a_state_of_other_batches_is_refused_with_what_differs(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    data = make(blobs)
    state = Loader(blobs, layout, data, "all", batch_size=10, seed=1).state()
    with pytest.raises(BadInput, match="batch_size 10 became 20, seed 1 became 0"):
        Loader(blobs, layout, data, "all", batch_size=20).load_state(state)
    with pytest.raises(BadInput, match="shuffle, drop_last"):
        Loader(blobs, layout, data, "all", batch_size=10, seed=1, shuffle=False).load_state(state)


def test_more_epochs_than_when_it_was_saved_are_just_more(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    data = make(blobs)
    short = Loader(blobs, layout, data, "all", batch_size=10)
    list(short)
    longer = Loader(blobs, layout, data, "all", batch_size=10, epochs=2)
    longer.load_state(short.state())
    assert len(ids(longer)) == 10


def test_a_loader_at_its_end_starts_again_but_not_when_it_was_put_there(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    data = make(blobs)
    loader = Loader(blobs, layout, data, "all", batch_size=10)
    first = ids(loader)
    resumed = Loader(blobs, layout, data, "all", batch_size=10)
    resumed.load_state(loader.state())
    assert ids(resumed) == []
    assert ids(loader) == ids(resumed) == first


def test_the_epoch_is_that_of_the_batch_in_hand(make: Any, blobs: Blobs, layout: Layout) -> None:
    loader = Loader(blobs, layout, make(blobs, rows=20), "all", batch_size=10, epochs=3)
    assert loader.epoch == 0
    assert [loader.epoch for _ in loader] == [0, 0, 1, 1, 2, 2]
    assert loader.epoch == 2


def test_missing_numbers_are_nan_and_missing_whole_numbers_are_refused(
    make: Any, blobs: Blobs, layout: Layout
) -> None:
    rows = [{"id": i, "x": None if i == 1 else i / 2, "n": 5 if i else None} for i in range(4)]
    data = make(blobs, rows)
    with pytest.raises(BadInput, match=r'column "n" has 1 missing values.*int64'):
        Loader(blobs, layout, data, "all", batch_size=4)
    loader = Loader(blobs, layout, data, "all", batch_size=4, shuffle=False, columns=["x"])
    assert str(loader.example(4)["x"].tolist()) == "[0.0, nan, 1.0, 1.5]"


@pytest.mark.parametrize("options", [{"epochs": 0}, {"rank": 2, "world_size": 2}, {"rank": -1}])
def test_options_that_make_no_sense_are_refused(
    make: Any, blobs: Blobs, layout: Layout, options: dict[str, int]
) -> None:
    with pytest.raises(BadInput):
        Loader(blobs, layout, make(blobs), "all", batch_size=10, **options)


class Squares:
    """Any source of rows will do."""

    identity = "squares"

    def __len__(self) -> int:
        return 12

    def gather(self, rows: np.ndarray) -> dict[str, Values]:
        return {"id": rows, "square": rows**2}


def test_a_loader_runs_over_any_source_of_rows() -> None:
    loader = Loader.over(Squares(), batch_size=4, epochs=2)
    batches = list(loader)
    assert sorted(flat(ids(batches[:3]))) == list(range(12))
    assert all(torch.equal(each["square"], each["id"] ** 2) for each in batches)


def test_digits_come_back_as_they_went_in(
    make: Any, blobs: Blobs, layout: Layout, digits: dict[str, Any]
) -> None:
    data = make(blobs, digits, key=None, shard_rows=500)
    loader = Loader(blobs, layout, data, "all", batch_size=100, shuffle=False)
    images = torch.cat([batch["image"] for batch in loader])
    labels = torch.cat([batch["label"] for batch in loader])
    assert np.array_equal(images.numpy(), digits["image"])
    assert np.array_equal(labels.numpy(), digits["label"])
