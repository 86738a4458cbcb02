"""What `torchdata.dataloader_of` gives to torch: imported only where torch is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from penstock.base.errors import BadInput
from penstock.data.order import Order, order_indices
from penstock.data.pipeline.tensors import to_torch

_BLOCK = 1 << 12  # rows whose order is computed at once


class SourceDataset(Dataset[Any]):
    """A source as a map-style Dataset. The source stays its owner's; a forked DataLoader worker
    reads through the same maps."""

    def __init__(self, source: Any) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One sample: {name: tensor, or value}."""
        if not -len(self) <= row < len(self):
            raise IndexError(row)  # what ends a plain iteration
        return {name: values[0] for name, values in self.__getitems__([row % len(self)]).items()}

    def __getitems__(self, rows: list[int]) -> dict[str, Any]:
        """A batch of these rows: {name: tensor [b, *shape], or list}."""
        found: dict[str, Any] = to_torch(self._source.gather(np.asarray(rows, np.int64)))
        return found


def batch_of(fetched: Any) -> Any:
    """A collate_fn for what is a batch already."""
    if isinstance(fetched, Mapping):
        return fetched
    from torch.utils.data import default_collate

    return default_collate(fetched)


class OrderSampler(Sampler[int]):
    """Rows in Penstock's order, one epoch per `iter`: the same one until `set_epoch`, as torch's
    DistributedSampler has it. Keeps no place."""

    def __init__(self, order: Order, epoch: int = 0) -> None:
        self.order, self.epoch = order, epoch

    def __len__(self) -> int:
        return self.order.rows

    def __iter__(self) -> Iterator[int]:
        return self.rows_from(0)

    def rows_from(self, start: int) -> Iterator[int]:
        """Rows at positions start, start + 1, … of the epoch that is set now; costs the same at
        any start."""
        return self._rows(self.epoch, start)

    def _rows(self, epoch: int, start: int) -> Iterator[int]:
        block = max(self.order.batch, _BLOCK)
        for at in range(start, self.order.rows, block):
            yield from order_indices(self.order, epoch, at, at + block).tolist()

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class Placed(Sampler[int]):
    """A sampler whose next `iter` can begin late.

    sampler  an OrderSampler, or what a trainer has put over one to share it out over ranks
    order    the OrderSampler, which hears which epoch it is
    """

    def __init__(self, sampler: Any, order: OrderSampler) -> None:
        self._sampler, self._order = sampler, order
        self._direct = sampler is order
        self._start = 0
        self.place = order.epoch, 0  # of its DataLoader: the batch that comes next
        self.loaded = False  # whether the next `iter` goes on there

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[int]:
        start, self._start = self._start, 0
        if self._direct:
            return self._order.rows_from(start)
        rows: Iterator[int] = islice(self._sampler, start, None)
        return rows

    def begin(self, start: int) -> None:
        """The next `iter`, and no other, leaves out the first `start` rows."""
        self._start = start

    @property
    def epoch(self) -> int:
        return self._order.epoch

    def set_epoch(self, epoch: int) -> None:
        """For the next `iter`."""
        self._order.set_epoch(epoch)
        if hasattr(self._sampler, "set_epoch"):
            self._sampler.set_epoch(epoch)


class OrderedDataset(SourceDataset):
    """A source as a Dataset, with the order in which an `OrderLoader` reads it."""

    def __init__(self, source: Any, order: OrderSampler) -> None:
        super().__init__(source)
        self.order = order


class OrderLoader(DataLoader[Any]):
    """A DataLoader that knows how many of its batches were given, whatever workers fetched ahead.

    dataset  has the order with it, so that whoever makes this loader anew with another `sampler`,
             to share it out over ranks, keeps it: trainers know no arguments but a DataLoader's
    options  of the DataLoader

    An `iter` is a whole epoch from its beginning, or the rest of one after `load_state_dict`. When
    the last batch was given, the next epoch follows; one that was broken off begins again.
    `set_epoch`, here or of the sampler, says which. A state that was loaded goes before a sampler's
    `set_epoch`, since trainers count from 0 in every process.
    """

    def __init__(
        self,
        dataset: OrderedDataset,
        *,
        sampler: Any = None,
        batch_sampler: Any = None,
        **options: Any,
    ) -> None:
        self._order = dataset.order
        # all that changes is in there: trainers repeat on a new loader what was set on the old one
        self._rows = Placed(dataset.order if sampler is None else sampler, dataset.order)
        if batch_sampler is None:
            super().__init__(dataset, sampler=self._rows, **options)
        else:
            super().__init__(dataset, batch_sampler=batch_sampler, **options)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        steps = len(self)
        epoch, step = self._rows.place if self._rows.loaded else (self._order.epoch, 0)
        self._rows.place, self._rows.loaded = (epoch, step), False
        self._rows.set_epoch(epoch)
        self._rows.begin(step * (self.batch_size or 0))
        for batch in super().__iter__():
            step += 1
            self._rows.place = epoch, step
            if step == steps:
                self.set_epoch(epoch + 1)
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """The next `iter` is this epoch, from its beginning. What was loaded is forgotten, unless
        it is a place in this epoch."""
        self._rows.set_epoch(epoch)
        if not self._rows.loaded or self._rows.place[0] != epoch:
            self._rows.place, self._rows.loaded = (epoch, 0), False

    def state_dict(self) -> dict[str, int]:
        """The batch that comes next after those that were given, at any number of workers:
        epoch, step; and what both are counted in."""
        epoch, step = self._rows.place
        return {"epoch": epoch if step else self._order.epoch, "step": step} | self._counted()

    def _counted(self) -> dict[str, int]:
        """steps: of this rank in an epoch; order: its fingerprint."""
        return {"steps": len(self), "order": self._order.order.fingerprint}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """The next `iter` gives the rest of the epoch. Raises BadInput for another loader's."""
        for name, mine in self._counted().items():
            if state.get(name) != mine:
                raise BadInput(
                    f"the saved place is of another DataLoader: {name} differs",
                    "Use the data, batch size, seed and number of ranks of the run that saved it.",
                    saved=state.get(name),
                    here=mine,
                )
        if self.sampler is not self._rows and state["step"]:
            raise BadInput(
                "a DataLoader with a batch_sampler of another making cannot begin late",
                "Give a sampler, or none.",
            )
        self._rows.place, self._rows.loaded = (state["epoch"], state["step"]), True
        self._rows.set_epoch(state["epoch"])
