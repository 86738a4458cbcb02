"""What `torchdata.dataloader_of` gives to torch: imported only where torch is wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from penstock.data.order import Order, batch_indices, check_order
from penstock.data.pipeline.tensors import to_torch


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


class OrderSampler(Sampler[list[int]]):
    """A batch sampler in Penstock's order; each `iter` is an epoch, one after the other.

    batch_size, drop_last  as torch's own have them, for whoever shards it
    state_dict             the epoch and the batch in it that come next
    """

    def __init__(
        self, source: Any, batch_size: int, seed: int, shuffle: bool, drop_last: bool, epoch: int
    ) -> None:
        self.order = Order(source.identity, len(source), batch_size, seed, shuffle, drop_last)
        check_order(self.order, 1)
        self.batch_size, self.drop_last = batch_size, drop_last
        self._epoch, self._step = epoch, 0

    def __len__(self) -> int:
        return self.order.steps

    def __iter__(self) -> Iterator[list[int]]:
        while self._step < len(self):
            step, self._step = self._step, self._step + 1
            yield batch_indices(self.order, self._epoch, step).tolist()
        self._epoch, self._step = self._epoch + 1, 0

    def set_epoch(self, epoch: int) -> None:
        """The next `iter` is this epoch, from its beginning; that of the same epoch goes on."""
        if epoch != self._epoch:
            self._epoch, self._step = epoch, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._epoch, "step": self._step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._epoch, self._step = state["epoch"], state["step"]
