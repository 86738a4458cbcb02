"""The same batches whoever makes them: threads, workers, after a resume, at any world size."""

from __future__ import annotations

import gc
import threading
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from tests.data.pipeline.conftest import ROWS, Home, all_kinds, fails_at_17, noisy

from penstock.base.errors import BadInput, CannotTravel, UserCodeFailed
from penstock.data import Loader, ShardSource
from penstock.data.pipeline.collate import PADDED

shared = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None
)


def ids(batches: Any) -> list[list[int]]:
    return [batch["id"].tolist() for batch in batches]


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor | np.ndarray):
        return bool(torch.equal(torch.as_tensor(one), torch.as_tensor(other)))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_ranks_parts_make_up_the_same_global_batches(
    home: Home, world_size: int, workers: int
) -> None:
    def of(rank: int, count: int, workers: int) -> list[dict[str, Any]]:
        loader = home.loader(
            batch_size=world_size, map=noisy, rank=rank, world_size=count, workers=workers
        )
        found = list(loader)
        loader.close()
        return found

    whole = of(0, 1, 0)
    ranks = range(world_size) if not workers else [world_size - 1]
    for rank in ranks:
        for part, batch in zip(of(rank, world_size, workers), whole, strict=True):
            assert part["id"].tolist() == batch["id"][rank : rank + 1].tolist()
            assert torch.equal(part["noise"], batch["noise"][rank : rank + 1])


def test_noise_depends_on_the_sample_epoch_and_seed_alone(home: Home) -> None:
    def noise(**options: Any) -> dict[tuple[int, int], tuple[float, ...]]:
        loader = home.loader(map=noisy, epochs=2, **options)
        found = {}
        for step, batch in enumerate(loader):
            for i, row in zip(batch["id"].tolist(), batch["noise"].tolist(), strict=True):
                found[step // loader.steps_per_epoch, i] = tuple(row)
        return found

    one = noise(batch_size=1)
    assert one == noise(batch_size=61) == noise(batch_size=61, shuffle=False)
    assert len(set(one.values())) == 2 * ROWS
    assert not set(one.values()) & set(noise(batch_size=1, seed=1).values())
    few = noise(batch_size=1, filter=lambda sample: sample["id"] < 5)
    assert few == {key: value for key, value in one.items() if key[1] < 5}


def test_a_batch_map_gets_columns_and_the_samples_generators(home: Home) -> None:
    def shift(batch: dict[str, Any], rngs: Any) -> dict[str, Any]:
        return {"id": batch["id"], "noise": np.stack([rng.random(2) for rng in rngs])}

    wanted = list(home.loader(map=noisy))
    found = list(home.loader(batch_map=shift, threads=3))
    assert all(torch.equal(a["noise"], b["noise"]) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("threads", [0, 2])
def test_an_exception_of_the_map_is_one_error_with_its_traceback_row_and_key(
    home: Home, workers: int, threads: int
) -> None:
    loader = home.loader(map=fails_at_17, workers=workers, threads=threads, shuffle=False)
    before = []
    with pytest.raises(UserCodeFailed, match=r"ValueError: seventeen \(in map, row 17") as error:
        before += loader
    loader.close()
    assert ids(before) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    facts = error.value.facts
    assert (facts["row"], facts["key"]) == (17, 17)
    assert 'raise ValueError("seventeen")' in facts["traceback"]
    assert "pipeline/work.py" not in facts["traceback"]


def test_a_map_that_gives_no_sample_is_refused(home: Home) -> None:
    with pytest.raises(BadInput, match="the map gave NoneType for row") as error:
        next(iter(home.loader(map=lambda sample: None)))
    assert "filter=" in error.value.fix


def test_a_function_without_a_name_does_not_travel_to_workers(home: Home) -> None:
    with pytest.raises(CannotTravel, match="lambda"):
        next(iter(home.loader(map=lambda sample: sample, workers=1)))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_collate_of_ones_own_may_give_anything(home: Home, workers: int) -> None:
    loader = home.loader(collate=all_kinds, workers=workers, shuffle=False)
    batch = next(iter(loader))
    loader.close()
    assert batch["array"].tolist() == [0, 1, 2, 3, 4, 5]
    assert isinstance(batch["array"], torch.Tensor)
    assert batch["nested"]["pair"][0].tolist() == [1, 2, 3, 4, 5, 6]
    assert batch["nested"]["pair"][1] == [0, 1, 2, 3, 4, 5]
    assert batch["bytes"][3] == b"\x03\x03\x03"
    assert batch["text"] == ["0", "1", "2", "3", "4", "5"]


def test_what_a_worker_gave_stays_as_it_is_while_it_is_held(home: Home) -> None:
    loader = home.loader(workers=1, epochs=30)
    held = list(islice(loader, 5))
    copies = [batch["image"].clone() for batch in held]
    list(loader)
    assert all(torch.equal(b["image"], c) for b, c in zip(held, copies, strict=True))
    held[0]["image"].zero_()  # and may be changed
    loader.close()
    assert torch.equal(held[1]["image"], copies[1])


def test_ragged_lists_are_padded_to_the_longest(make: Any, home: Home) -> None:
    rows = [{"id": i, "t": np.arange(i % 4, dtype=np.int32)} for i in range(8)]
    data = make(home.blobs, rows)
    loader = Loader(
        home.blobs, home.layout, data, "all", batch_size=8, shuffle=False, collate="pad"
    )
    (batch,) = loader
    assert batch["t"].shape == (8, 3) and batch["t"].dtype == torch.int32
    assert batch["t"][3].tolist() == [0, 1, 2]
    assert (~batch["t_pad_mask"]).sum(1).tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


def test_what_a_map_makes_has_a_mask_in_every_batch_or_in_none(make: Any, home: Home) -> None:
    rows = [{"id": i, "point": np.full(2, i, np.float32)} for i in range(8)]
    data = make(home.blobs, rows)

    def words(sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "tokens": np.arange(3 if sample["id"] < 4 else sample["id"])}

    loader = Loader(
        home.blobs, home.layout, data, "all", batch_size=4, shuffle=False, map=words, collate="pad"
    )
    equal, ragged = loader
    names = {"id", "point", "tokens", "tokens_pad_mask"}
    assert equal.keys() == ragged.keys() == names
    assert equal["tokens"].shape == (4, 3) and not equal["tokens_pad_mask"].any()
    assert (~ragged["tokens_pad_mask"]).sum(1).tolist() == [4, 5, 6, 7]


def test_a_padded_last_batch_is_full_and_says_which_rows_are_padding(home: Home) -> None:
    parts = [
        list(home.loader(batch_size=8, pad_last=True, rank=rank, world_size=2)) for rank in (0, 1)
    ]
    assert [len(part) for part in parts] == [8, 8]
    assert all(len(batch["id"]) == 4 for part in parts for batch in part)
    real = [
        i
        for part in parts
        for batch in part
        for i, padding in zip(batch["id"].tolist(), batch[PADDED].tolist(), strict=True)
        if not padding
    ]
    assert sorted(real) == list(range(ROWS))
    with pytest.raises(BadInput, match="pad_last"):
        home.loader(pad_last=True, drop_last=True)


def test_a_map_that_makes_new_samples_does_not_lose_which_rows_are_padding(home: Home) -> None:
    (*_, last) = home.loader(batch_size=8, pad_last=True, map=noisy)
    assert last[PADDED].tolist() == [False] * 5 + [True] * 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_rank_without_a_row_of_a_batch_gets_the_columns_of_the_others(
    home: Home, workers: int
) -> None:
    loader = home.loader(batch_size=3, rank=3, world_size=4, workers=workers, **RESHAPED)
    (batch, *_), (other, *_) = loader, home.loader(batch_size=3, **RESHAPED)
    loader.close()
    assert list(batch) == list(other) == ["flat", "name"]
    assert batch["flat"].shape == (0, 6) and batch["flat"].dtype == other["flat"].dtype
    assert batch["name"] == []


def reshaped(sample: dict[str, Any]) -> dict[str, Any]:
    return {"flat": sample["image"].reshape(-1), "name": sample["name"]}


RESHAPED: dict[str, Any] = {"map": reshaped, "shuffle": False}


def test_a_filter_gives_full_batches_equal_steps_and_exact_resume(home: Home) -> None:
    def loader(rank: int, world_size: int) -> Loader:
        return home.loader(filter=is_odd, rank=rank, world_size=world_size, epochs=2)

    whole = ids(loader(0, 1))
    assert [len(batch) for batch in whole] == [6] * 10  # 30 odd rows, 5 batches an epoch
    assert sorted(chain.from_iterable(whole[:5])) == list(range(1, 60, 2))
    parts = [ids(loader(rank, 3)) for rank in range(3)]
    joined = [list(chain.from_iterable(step)) for step in zip(*parts, strict=True)]
    assert joined == whole
    first = loader(0, 1)
    list(islice(first, 3))
    rest = loader(0, 1)
    rest.load_state(first.state())
    assert ids(rest) == whole[3:]
    with pytest.raises(BadInput, match="filter"):
        home.loader(epochs=2).load_state({**first.state(), "rows": ROWS, "seed": 0})


def test_a_filter_is_asked_once_and_kept(home: Home) -> None:
    seen: list[int] = []

    def small(sample: dict[str, Any]) -> bool:
        seen.append(int(sample["id"]))
        return bool(sample["id"] < 30)

    home.loader(filter=small)
    assert seen == list(range(ROWS))
    kept = sorted(home.layout.samples.glob("*.v1"))
    home.loader(filter=is_odd)
    again = sorted(home.layout.samples.glob("*.v1"))
    home.loader(filter=is_odd)
    assert sorted(home.layout.samples.glob("*.v1")) == again
    assert len(again) <= len(kept) + 1


def test_a_filter_that_fails_or_leaves_nothing_is_one_error(home: Home) -> None:
    with pytest.raises(UserCodeFailed, match="in filter, row 0"):
        home.loader(filter=lambda sample: sample["nothing"])
    with pytest.raises(BadInput, match="leaves none of the 61"):
        home.loader(filter=lambda sample: False)


def is_odd(sample: dict[str, Any]) -> bool:
    return bool(sample["odd"])


def test_threads_end_with_their_iteration(home: Home) -> None:
    def alive() -> int:
        return sum(each.name == "penstock-batches" for each in threading.enumerate())

    before = alive()
    loader = home.loader(threads=3, ahead_bytes=1)
    iterator = iter(loader)
    next(iterator)
    assert alive() == before + 3
    iterator.close()  # type: ignore[attr-defined]
    assert alive() == before
    for _ in loader:
        break
    gc.collect()
    assert alive() == before


class Counted:
    """A source that counts rows that were gathered; a hundred bytes each."""

    identity = "counted"

    def __init__(self) -> None:
        self.gathered = 0

    def __len__(self) -> int:
        return 10_000

    def gather(self, rows: Any) -> dict[str, Any]:
        self.gathered += len(rows)
        return {"x": np.zeros((len(rows), 100), np.uint8)}


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_what_is_made_ahead_is_bounded_by_bytes(threads: int) -> None:
    source = Counted()
    loader = Loader.over(source, batch_size=10, threads=threads, ahead_bytes=20_000)
    iterator = iter(loader)
    for taken in range(1, 100):
        next(iterator)
        assert source.gathered * 100 <= taken * 1000 + 25_000  # and the piece in hand
    iterator.close()  # type: ignore[attr-defined]


def test_a_state_that_is_loaded_while_iterating_takes_effect_at_the_next_batch(home: Home) -> None:
    loader = home.loader(threads=2)
    batches = iter(loader)
    first = next(batches)
    next(batches)
    loader.load_state({**loader.state(), "next": 0})
    assert equal(next(batches), first)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"shuffle": "sometimes"}, "shuffle is 'sometimes'"),
        ({"window_rows": 10}, "window_rows says nothing"),
        ({"shuffle": "window", "window_rows": 0}, "a window of 0 rows"),
        ({"workers": -1}, "workers is -1"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"map": lambda a, b, c: a}, "takes 3 arguments"),
        ({"pad_last": True, "world_size": 4}, "does not divide by 4"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    home: Home, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(BadInput, match=match):
        next(iter(home.loader(**options)))


@pytest.mark.parametrize(
    "options",
    [
        {"shuffle": "window", "window_rows": 20},
        {"shuffle": False, "drop_last": True},
        {"pad_last": True},
        {"filter": is_odd, "shuffle": "window", "window_rows": 8},
    ],
    ids=["window", "as they lie", "pad_last", "filter"],
)
def test_every_order_is_the_same_from_workers_and_after_a_resume(
    home: Home, options: dict[str, Any]
) -> None:
    whole = list(home.loader(epochs=3, threads=0, **options))
    others = [home.loader(epochs=3, workers=2, **options), home.loader(epochs=3, **options)]
    for loader in others:
        head = list(islice(loader, 7))
        loader.load_state(loader.state())
        assert equal(head + list(loader), whole)
        loader.close()


def test_a_cache_too_small_for_the_split_changes_no_batch(make: Any, home: Home) -> None:
    data = make(home.blobs, rows=600, shard_rows=50)

    def batches(limit: int | None, **options: Any) -> list[list[int]]:
        source = ShardSource(home.blobs, home.layout, data, "all", limit=limit)
        loader = Loader.over(source, batch_size=20, epochs=2, **options)
        found = ids(loader)
        loader.close()
        return found

    for options in ({}, {"shuffle": "window", "window_rows": 100}, {"shuffle": False}):
        assert batches(20_000, **options) == batches(None, **options)
