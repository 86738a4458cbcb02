"""A source as torch's DataLoader: order, epochs, its place; in the hands of trainers."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from itertools import chain, islice
from typing import Any

import pytest
from torch.utils.data import DataLoader, DistributedSampler

from penstock.base.errors import BadInput
from penstock.base.layout import Layout
from penstock.blobs import Blobs
from penstock.data import Loader, ShardSource
from penstock.data.torchdata import dataloader_of
from penstock.data.torchmap import OrderLoader

WORKERS = [0, pytest.param(2, marks=pytest.mark.torch)]


@pytest.fixture
def source(make: Any, blobs: Blobs, layout: Layout) -> ShardSource:
    return ShardSource(blobs, layout, make(blobs, rows=50, shard_rows=20), "all")


def loader(source: ShardSource, workers: int = 0, **options: Any) -> OrderLoader:
    return dataloader_of(source, **({"batch_size": 8, "seed": 3, "num_workers": workers} | options))


def joined(lists: Iterable[list[Any]]) -> list[Any]:
    return list(chain.from_iterable(lists))


def ids(batches: Iterable[Any]) -> list[list[int]]:
    return [batch["id"].tolist() for batch in batches]


def epochs(source: ShardSource, count: int) -> list[list[list[int]]]:
    """What `Loader` gives, by epoch."""
    found = ids(Loader.over(source, batch_size=8, seed=3, epochs=count))
    return [found[at : at + 6] for at in range(0, 6 * count, 6)]


@pytest.mark.parametrize("workers", WORKERS)
def test_a_dataloader_gives_the_loaders_batches_epoch_by_epoch(
    source: ShardSource, workers: int
) -> None:
    theirs = loader(source, workers)
    assert isinstance(theirs, DataLoader) and len(theirs) == 6
    assert [ids(theirs), ids(theirs)] == epochs(source, 2)
    batch = next(iter(theirs))
    assert batch["image"].shape == (8, 2, 3) and isinstance(batch["name"], list)


def test_a_last_batch_that_is_kept_is_shorter(source: ShardSource) -> None:
    found = ids(loader(source, shuffle=False))
    assert [len(batch) for batch in found] == [8] * 6 + [2]
    assert joined(found) == list(range(50))


@pytest.mark.parametrize("options", [{}, pytest.param({"persistent_workers": True}, id="kept")])
@pytest.mark.parametrize("workers", WORKERS)
def test_an_epoch_that_was_broken_off_begins_again(
    source: ShardSource, workers: int, options: dict[str, Any]
) -> None:
    wanted = epochs(source, 2)
    theirs = loader(source, workers, **(options if workers else {}))
    next(iter(theirs))
    for number, _ in enumerate(theirs):
        if number == 2:
            break
    assert [ids(theirs), ids(theirs)] == wanted


@pytest.mark.parametrize("workers", WORKERS)
def test_its_state_counts_what_was_given_not_what_was_fetched_ahead(
    source: ShardSource, workers: int
) -> None:
    wanted = epochs(source, 3)
    for given in range(13):
        first = loader(source, workers if given in (0, 3, 6) else 0)
        batches = (batch for _ in range(3) for batch in first)
        seen = ids(islice(batches, given))
        state = first.state_dict()
        assert (state["epoch"], state["step"]) == divmod(given, 6)
        second = loader(source, 2 - workers if given == 3 else 0)
        second.load_state_dict(state)
        assert second.state_dict() == state
        rest = ids(second)
        assert seen + rest == joined(wanted)[: given - given % 6 + 6]
        batches.close()


def test_after_the_rest_of_an_epoch_whole_ones_follow(source: ShardSource) -> None:
    wanted = epochs(source, 3)
    first = loader(source)
    list(islice(first, 4))
    theirs = loader(source)
    theirs.load_state_dict(first.state_dict())
    assert [ids(theirs), ids(theirs), ids(theirs)] == [wanted[0][4:], wanted[1], wanted[2]]
    theirs.load_state_dict(first.state_dict())
    next(iter(theirs))
    assert ids(theirs) == wanted[0]


def test_set_epoch_says_which_epoch_comes_next(source: ShardSource) -> None:
    wanted = epochs(source, 3)
    theirs = loader(source)
    theirs.set_epoch(2)
    assert theirs.state_dict()["epoch"] == 2 and ids(theirs) == wanted[2]
    theirs.sampler.set_epoch(1)  # type: ignore[attr-defined]
    assert ids(theirs) == wanted[1]
    list(islice(theirs, 4))
    theirs.load_state_dict(theirs.state_dict() | {"epoch": 0, "step": 4})
    theirs.set_epoch(0)  # where it stands already
    assert ids(theirs) == wanted[0][4:]
    assert ids(loader(source, epoch=2)) == wanted[2]


def test_a_state_of_another_order_is_refused_and_says_what_differs(source: ShardSource) -> None:
    state = loader(source).state_dict()
    with pytest.raises(BadInput, match="order differs"):
        loader(source, seed=4).load_state_dict(state)
    with pytest.raises(BadInput, match="steps differs"):
        loader(source, batch_size=10).load_state_dict(state)
    with pytest.raises(BadInput, match="steps differs"):
        loader(source).load_state_dict({"epoch": 0, "step": 4})


# trainers


@pytest.mark.interop
@pytest.mark.parametrize("launched", [False, True])
def test_fabric_shares_the_order_out_over_ranks(source: ShardSource, launched: bool) -> None:
    fabric = pytest.importorskip("lightning_fabric")
    data = pytest.importorskip("lightning_fabric.utilities.data")
    wanted = [joined(epoch) for epoch in epochs(source, 2)]

    def rank(number: int) -> Any:
        with data._replace_dunder_methods(DataLoader, "dataset") if launched else nullcontext():
            given = loader(source, batch_size=4)
        made = fabric.Fabric._get_distributed_sampler(given, num_replicas=2, rank=number)
        return data._update_dataloader(given, made)

    ranks = [rank(0), rank(1)]
    assert all(type(each) is OrderLoader and len(each) == 6 for each in ranks)
    for epoch in range(2):
        parts = [joined(ids(each)) for each in ranks]
        assert [row for pair in zip(*parts, strict=True) for row in pair] == wanted[epoch]

    first, second = rank(0), rank(0)
    seen = ids(islice(first, 4))
    second.load_state_dict(first.state_dict())
    data._set_sampler_epoch(second, 0)
    assert joined(seen + ids(second)) == wanted[0][::2]
    data._set_sampler_epoch(second, 1)
    assert joined(ids(second)) == wanted[1][::2]


@pytest.mark.interop
def test_fabric_can_put_a_sampler_of_its_own_in_its_place(source: ShardSource) -> None:
    data = pytest.importorskip("lightning_fabric.utilities.data")
    sampler: Any = DistributedSampler(range(50), num_replicas=2, rank=1, shuffle=True)  # type: ignore[arg-type]
    theirs = data._update_dataloader(loader(source), sampler)
    one, two = ids(theirs), ids(theirs)
    assert len(one) == len(theirs) == 3 and one != two
    with pytest.raises(BadInput, match="steps differs"):
        theirs.load_state_dict(loader(source).state_dict())


@pytest.mark.interop
def test_lightnings_trainer_goes_on_where_a_checkpoint_was_written(
    source: ShardSource, tmp_path: Any
) -> None:
    lightning = pytest.importorskip("pytorch_lightning")
    import torch

    seen: list[list[int]] = []

    class Seeing(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def training_step(self, batch: Any, number: int) -> Any:
            seen.append(batch["id"].tolist())
            return self.layer(torch.ones(8, 1)).sum()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    def fit(steps: int, **options: Any) -> None:
        saving = lightning.callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=10)
        lightning.Trainer(
            max_steps=steps, accelerator="cpu", logger=False, callbacks=[saving],
            enable_progress_bar=False, enable_model_summary=False,
        ).fit(Seeing(), loader(source), **options)  # fmt: skip

    wanted = joined(epochs(source, 3))
    fit(14)
    assert seen == wanted[:14]
    seen.clear()
    fit(18, ckpt_path=tmp_path / "step=10.ckpt", weights_only=False)
    assert seen == wanted[10:]


@pytest.mark.interop
def test_accelerate_shares_every_batch_out(source: ShardSource) -> None:
    accelerate = pytest.importorskip("accelerate")
    data = pytest.importorskip("accelerate.data_loader")
    accelerate.PartialState(cpu=True)
    wanted = epochs(source, 2)
    alone = data.prepare_data_loader(loader(source), put_on_device=False)
    assert [ids(alone), ids(alone)] == wanted
    halves = [
        data.prepare_data_loader(
            loader(source), num_processes=2, process_index=rank, split_batches=True
        )
        for rank in (0, 1)
    ]
    for epoch in wanted:
        one, two = (ids(half) for half in halves)
        assert [a + b for a, b in zip(one, two, strict=True)] == epoch
