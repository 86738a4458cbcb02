"""torch's datasets as sources, and sources as torch's datasets."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from penstock.base.errors import BadInput, UserCodeFailed
from penstock.base.layout import Layout
from penstock.blobs import Blobs
from penstock.data import Loader, ShardSource
from penstock.data.torchdata import StreamLoader, TorchSource, dataset_of


class Pair(NamedTuple):
    x: Any
    y: Any


class Drawing(Dataset[Any]):
    """Samples with noise from all three global generators."""

    def __init__(self, kind: str = "tuple", rows: int = 20) -> None:
        self.kind, self.rows = kind, rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> Any:
        if self.kind == "fails" and row == 3:
            raise KeyError("three")
        noise = torch.rand(2) + random.random() + np.random.random()
        return {
            "tuple": (noise, row),
            "named": Pair(noise, row),
            "dict": {"x": noise, "y": row, "name": f"n{row}"},
            "fails": row,
            "one": noise,
        }[self.kind]


def loader(kind: str, **options: Any) -> Loader:
    return Loader.over(TorchSource(Drawing(kind)), **({"batch_size": 4} | options))


def test_batches_have_the_shape_of_the_samples() -> None:
    x, y = next(iter(loader("tuple", shuffle=False)))
    assert x.shape == (4, 2) and y.tolist() == [0, 1, 2, 3]
    named = next(iter(loader("named", shuffle=False)))
    assert isinstance(named, Pair) and named.y.tolist() == [0, 1, 2, 3]
    batch = next(iter(loader("dict", shuffle=False)))
    assert batch["name"] == ["n0", "n1", "n2", "n3"]
    assert next(iter(loader("one"))).shape == (4, 2)


def test_a_rank_without_a_row_gets_the_shape_of_the_samples() -> None:
    x, y = next(iter(loader("tuple", shuffle=False, batch_size=2, rank=2, world_size=3)))
    assert x.shape == (0, 2) and y.dtype == torch.int64 and len(y) == 0


def test_its_noise_is_the_samples_own_at_any_batch_size_worker_count_and_stop() -> None:
    def noise(**options: Any) -> dict[int, list[float]]:
        found = loader("tuple", **options)
        rows = {y: x for xs, ys in found for x, y in zip(xs.tolist(), ys.tolist(), strict=True)}
        found.close()
        return rows

    one = noise(batch_size=1)
    assert one == noise(batch_size=5) == noise(batch_size=5, workers=2)
    assert one != noise(batch_size=1, seed=1)
    resumed = loader("tuple", batch_size=5)
    list(islice(resumed, 2))
    rest = {y: x for xs, ys in resumed for x, y in zip(xs.tolist(), ys.tolist(), strict=True)}
    assert len(rest) == 10 and rest.items() <= one.items()


def test_reading_it_leaves_the_global_generators_as_they_were() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    list(loader("tuple"))
    assert torch.equal(torch.rand(3), wanted)


def test_an_exception_in_it_is_one_error_that_names_the_row() -> None:
    with pytest.raises(UserCodeFailed, match=r"KeyError: 'three'.*__getitem__, row 3") as error:
        list(loader("fails"))
    assert 'raise KeyError("three")' in error.value.facts["traceback"]


class Counting(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(range(50))


def test_a_stream_gives_every_rank_its_part_and_goes_on_by_reading_again() -> None:
    def stream(rank: int, world_size: int) -> StreamLoader:
        return StreamLoader(Counting(), batch_size=6, rank=rank, world_size=world_size)

    whole = [batch.tolist() for batch in stream(0, 1)]
    assert whole == [list(range(i, i + 6)) for i in range(0, 48, 6)]
    halves = [[batch.tolist() for batch in stream(rank, 2)] for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
    first = stream(0, 1)
    list(islice(first, 3))
    rest = stream(0, 2)
    rest.load_state(first.state())
    assert [batch.tolist() for batch in rest] == [batch[:3] for batch in whole[3:]]
    with pytest.raises(BadInput, match="another stream"):
        StreamLoader(Counting(), batch_size=12).load_state(first.state())
    assert stream(0, 1).endless
    with pytest.raises(BadInput, match="no number of steps"):
        len(stream(0, 1))


def test_a_stream_puts_its_batches_where_the_run_is() -> None:
    batch = next(iter(StreamLoader(Counting(), batch_size=6, device=torch.device("meta"))))
    assert batch.device.type == "meta" and batch.shape == (6,)


@pytest.fixture
def source(make: Any, blobs: Blobs, layout: Layout) -> ShardSource:
    return ShardSource(blobs, layout, make(blobs, rows=50, shard_rows=20), "all")


def test_a_source_is_a_map_style_dataset_for_any_other_loader(source: ShardSource) -> None:
    dataset: Any = dataset_of(source)
    assert len(dataset) == 50 and dataset[-1]["name"] == "n49"
    batch = next(iter(DataLoader(dataset, batch_size=4, collate_fn=lambda batch: batch)))
    assert batch["id"].tolist() == [0, 1, 2, 3]
    with pytest.raises(IndexError):
        dataset[50]
