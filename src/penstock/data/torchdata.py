"""torch's data, both ways: a Dataset as a source, and a source as a Dataset and DataLoader.

A map-style Dataset keeps its `__getitem__`; Penstock says which samples come when, so order,
resuming and sharding over ranks are exact. Random numbers that it draws from Python's, NumPy's or
torch's own generators are keyed by the sample as well: they are seeded before each sample. So it
is read in the step's own thread or in workers, never in threads beside it.

An IterableDataset has no row numbers: its order is its own. Every rank reads all of it and keeps
its part of each global batch, and going on reads again what was read before; exact if it yields
the same every time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.base.errors import BadInput
from penstock.base.hashing import digest_json
from penstock.data.columns import Values
from penstock.data.order import Order, Rows, check_order, fingerprint, rank_slice
from penstock.data.pipeline.collate import collated, stacked
from penstock.data.pipeline.randoms import seed_of
from penstock.data.pipeline.tensors import moved, to_torch
from penstock.data.pipeline.work import failed

if TYPE_CHECKING:
    import torch.utils.data

    from penstock.data.torchmap import OrderLoader


class TorchSource:
    """A map-style Dataset as a source. Owns nothing.

    identity  keys the order; default: the dataset's class and length, so a dataset whose samples
              changed should be given another one
    A sample may be a dictionary, a tuple, or one value; a batch has the same shape, as torch's
    default_collate would make it, with lists where samples differ in shape.
    """

    def __init__(self, dataset: Any, *, identity: str = "") -> None:
        for name in ("__len__", "__getitem__"):
            if not hasattr(dataset, name):
                raise BadInput(
                    f"{type(dataset).__name__} has no {name}", "Give a map-style torch Dataset."
                )
        self._dataset = dataset
        kind = f"{type(dataset).__module__}.{type(dataset).__qualname__}"
        kind = type(dataset).__qualname__ if kind.startswith("__main__") else kind
        self.identity = identity or digest_json(["penstock-torch-1", kind, len(dataset)])
        self._kind: type | None = None

    def __len__(self) -> int:
        return len(self._dataset)

    def gather(self, rows: Rows) -> dict[str, Values]:
        """As `gather_seeded`, of epoch 0 and seed 0."""
        return self.gather_seeded(rows, np.zeros(len(rows), np.int64), 0)

    def gather_seeded(self, rows: Rows, epochs: Rows, key: int) -> dict[str, Values]:
        """{name: values}; of tuples the names are "0", "1", …. Random states are afterwards as
        before. Raises UserCodeFailed."""
        samples = []
        with _states_kept():
            for row, epoch in zip(rows.tolist(), epochs.tolist(), strict=True):
                _seed(seed_of(key, row, epoch))
                try:
                    samples.append(self._dataset[row])
                except Exception as error:
                    raise failed(error, "the dataset's __getitem__", row, None) from error
        if samples:
            self._kind = type(samples[0])
        return collated([_named(each) for each in samples])

    def assemble(self, batch: Mapping[str, Any]) -> Any:
        """Columns in the shape that samples have."""
        kind = self._kind
        if kind is None or issubclass(kind, Mapping):
            return batch
        extra = {name: batch[name] for name in batch if not name.isdecimal()}
        if not issubclass(kind, tuple | list):
            return batch["0"] if not extra else batch
        values = tuple(batch[name] for name in batch if name.isdecimal())
        if extra:  # such as is_padding
            values += tuple(extra.values())
        elif hasattr(kind, "_fields"):
            return kind(*values)
        return values


def _named(sample: Any) -> Mapping[str, Any]:
    if isinstance(sample, Mapping):
        return sample
    values = sample if isinstance(sample, tuple | list) else [sample]
    return {str(number): value for number, value in enumerate(values)}


def _seed(number: int) -> None:
    import torch

    random.seed(number)
    np.random.seed(number % 2**32)
    torch.default_generator.manual_seed(number)


@contextmanager
def _states_kept() -> Iterator[None]:
    import torch

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class StreamLoader:
    """Batches of an IterableDataset: this rank's part of every global batch, in its own order.

    length  global batches, where it is known; the dataset's own `len` is taken where it has one
    device  where batches are put; None: the CPU
    Weaker than `Loader`: the order is what the dataset yields; going on at step k reads k batches
    again; every rank reads everything. Keeps no threads.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
        length: int | None = None,
        device: Any = None,
    ) -> None:
        if batch_size < 1 or batch_size % world_size:
            raise BadInput(
                f"a global batch of {batch_size} does not divide by {world_size} ranks",
                "Take a batch size that does.",
                batch_size=batch_size,
            )
        self._dataset = dataset
        self._batch = batch_size
        self._part = rank, world_size
        self._drop_last = drop_last
        self._device = device
        if length is None and hasattr(dataset, "__len__"):
            length = len(dataset) // batch_size if drop_last else -(-len(dataset) // batch_size)
        self._length = length
        self._next = 0
        self._ended = False

    @property
    def endless(self) -> bool:
        """Whether nobody knows how many batches there are."""
        return self._length is None

    def __len__(self) -> int:
        if self._length is None:
            raise BadInput(
                "an IterableDataset without a length has no number of steps",
                "Give it a __len__, or break off the loop yourself.",
            )
        return self._length

    @property
    def batch_size(self) -> int:
        return self._batch

    def state(self) -> dict[str, int]:
        kind = fingerprint(f"stream/{type(self._dataset).__qualname__}/{self._drop_last}")
        return {"next": self._next, "batch_size": self._batch, "order": kind}

    def load_state(self, state: Mapping[str, int]) -> None:
        """Stand where `state` says. BadInput for a state of something else."""
        mine = self.state()
        for name in ("batch_size", "order"):
            if state[name] != mine[name]:
                raise BadInput(
                    f"the saved place is of another stream: {name} differs",
                    "Use the dataset and batch size of the run that saved it.",
                )
        self._next, self._ended = state["next"], False

    def __iter__(self) -> Iterator[Any]:
        if self._ended:
            self._next, self._ended = 0, False
        samples = iter(self._dataset)
        for _ in islice(samples, self._next * self._batch):
            pass
        while self._length is None or self._next < self._length:
            batch = list(islice(samples, self._batch))
            if not batch or (self._drop_last and len(batch) < self._batch):
                break
            part = rank_slice(np.arange(len(batch)), *self._part)
            self._next += 1
            collated_part = _collated([batch[i] for i in part])
            yield collated_part if self._device is None else moved(collated_part, self._device)
        self._ended = True

    def close(self) -> None: ...


def _collated(samples: list[Any]) -> Any:
    if samples and not isinstance(samples[0], Mapping | tuple | list):
        return to_torch(stacked(samples))
    columns = to_torch(collated([_named(each) for each in samples]))
    return columns if samples and isinstance(samples[0], Mapping) else tuple(columns.values())


# the other way


def dataset_of(source: Any) -> torch.utils.data.Dataset[Any]:
    """A source as a map-style Dataset: `[row]` is a sample, a list of rows a batch, gathered at
    once (`__getitems__`). With `batch_of` as collate_fn a DataLoader copies nothing again."""
    from penstock.data.torchmap import SourceDataset

    return SourceDataset(source)


def dataloader_of(
    source: Any,
    *,
    batch_size: int,
    seed: int = 0,
    shuffle: bool = True,
    drop_last: bool | None = None,
    epoch: int = 0,
    **options: Any,
) -> OrderLoader:
    """A torch DataLoader over a source, in the order that a `Loader` has.

    It is a DataLoader with a map-style dataset and a sampler, so Lightning, Accelerate and others
    share it out over ranks as they do with any, and the order stays. Epochs, breaking off and
    `state_dict`: see `OrderLoader`.
    epoch    where it begins
    options  of the DataLoader: num_workers, pin_memory, …
    """
    from penstock.data.torchmap import OrderedDataset, OrderLoader, OrderSampler, batch_of

    drop_last = shuffle if drop_last is None else drop_last
    order = Order(source.identity, len(source), batch_size, seed, shuffle, drop_last)
    check_order(order, 1)
    return OrderLoader(
        OrderedDataset(source, OrderSampler(order, epoch)),
        batch_size=batch_size,
        drop_last=drop_last,
        **{"collate_fn": batch_of, **options},
    )
