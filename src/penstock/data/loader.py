"""Batches of a split, as this rank's part of each global batch.

Order is a function of (content, split, seed, epoch, global batch, shuffle, drop_last) and nothing
else; where it continues is one number, valid at any world size.

Letters: B global batch, W ranks, b = this rank's rows of a batch (B / W; see `order.rank_slice`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.base.errors import BadInput
from penstock.base.layout import Layout
from penstock.blobs import Blobs
from penstock.data.columns import Values
from penstock.data.manifest import Manifest
from penstock.data.order import Order, Rows, check_order, order_indices, rank_slice
from penstock.data.source import ShardSource, Source

if TYPE_CHECKING:
    import torch

Batch = dict[str, "torch.Tensor | list[Any]"]

_AHEAD = 1 << 13  # positions whose order is computed at once: 64 KiB, and most of its cost saved


class Loader:
    """Iterate it: each step gives {column: tensor [b, *shape], or list of b values}.

    batch_size  B, of all ranks together
    epochs      passes over the split; each has its own order
    shuffle     False: rows as they lie
    drop_last   leave out an incomplete last batch; default: as `shuffle`. Kept, it is shorter, and
                the ranks' parts may differ by one row or be empty; every rank still gets a batch
                at every step, so collectives stay in step
    columns     only these; default: all
    name        of the version, for messages

    Iterating goes on from where the loader stands and moves it, before a batch is handed out. A
    loader that was iterated to its end starts again at the next `iter`; one that `load_state` put
    at the end is at the end.

    Raises BadInput (B does not divide by W, B larger than the split), NotFound (split, column),
    and Damaged before the first batch that would need a damaged shard. Not for several threads.
    """

    def __init__(
        self,
        blobs: Blobs,
        layout: Layout,
        manifest: Manifest,
        split: str,
        *,
        batch_size: int,
        epochs: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool | None = None,
        rank: int = 0,
        world_size: int = 1,
        columns: Sequence[str] | None = None,
        name: str = "",
    ) -> None:
        source = ShardSource(blobs, layout, manifest, split, columns=columns, name=name)
        self._begin(
            source,
            batch_size=batch_size,
            epochs=epochs,
            seed=seed,
            shuffle=shuffle,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        )

    @classmethod
    def over(
        cls,
        source: Source,
        *,
        batch_size: int,
        epochs: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> Loader:
        """A loader over any source of rows; all else as above."""
        made = cls.__new__(cls)
        made._begin(
            source,
            batch_size=batch_size,
            epochs=epochs,
            seed=seed,
            shuffle=shuffle,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
        )
        return made

    def _begin(
        self,
        source: Source,
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        shuffle: bool,
        drop_last: bool | None,
        rank: int,
        world_size: int,
    ) -> None:
        if not 0 <= rank < world_size:
            raise BadInput(f"there is no rank {rank} among {world_size}", "Count ranks from 0.")
        if epochs < 1:
            raise BadInput(f"{epochs} epochs are no epoch", "Give at least one.", epochs=epochs)
        self._source = source
        self.order = Order(
            source=source.identity,
            rows=len(source),
            batch=batch_size,
            seed=seed,
            shuffle=shuffle,
            drop_last=shuffle if drop_last is None else drop_last,
        )
        check_order(self.order, world_size)
        self.epochs = epochs
        self._part = rank, world_size
        self._next = 0
        self._ended = False
        self._known = (-1, 0, np.empty(0, np.int64))  # epoch, first position, rows from there on

    # how far

    def __len__(self) -> int:
        """Steps of all epochs together."""
        return self.steps_per_epoch * self.epochs

    @property
    def steps_per_epoch(self) -> int:
        return self.order.steps

    @property
    def batch_size(self) -> int:
        """B, of all ranks together."""
        return self.order.batch

    @property
    def epoch(self) -> int:
        """Of the batch in hand, from 0; before the first batch: of the first to come."""
        return min(max(0, self._next - 1) // self.steps_per_epoch, self.epochs - 1)

    def state(self) -> dict[str, int]:
        """Where it stands: the next global batch, and what its number is worth."""
        return {
            "next": self._next,
            "rows": self.order.rows,
            "batch_size": self.order.batch,
            "seed": self.order.seed,
            "order": self.order.fingerprint,
        }

    def load_state(self, state: Mapping[str, int]) -> None:
        """Stand where `state` says; any world size. BadInput when it counts other batches."""
        mine = self.state()
        if state["order"] != mine["order"]:
            told = [
                f"{what} {state[what]} became {mine[what]}"
                for what in ("rows", "batch_size", "seed")
                if state[what] != mine[what]
            ]
            raise BadInput(
                "the saved place counts batches of another order: "
                + (", ".join(told) or "other data, shuffle or drop_last"),
                "Use the data and loader options of the run that saved it, or start a new run.",
                saved=dict(state),
                here=mine,
            )
        self._next = state["next"]
        self._ended = False

    # batches

    def __iter__(self) -> Iterator[Batch]:
        if self._ended:
            self._next, self._ended = 0, False
        while self._next < len(self):
            step = self._next
            batch = _to_torch(self._gather(step))
            self._next = step + 1
            yield batch
        self._ended = True

    def sweep(self, epoch: int = 0) -> Iterator[Batch]:
        """All batches of one epoch, wherever the loader stands, without moving it."""
        first = epoch * self.steps_per_epoch
        for step in range(first, first + self.steps_per_epoch):
            yield _to_torch(self._gather(step))

    def example(self, rows: int = 1) -> Batch:
        """The first rows as they lie (equal on all ranks), without moving the loader."""
        wanted = np.arange(min(rows, len(self._source)), dtype=np.int64)
        return _to_torch(self._source.gather(wanted))

    def rows_of(self, step: int) -> Rows:
        """Row numbers of this rank's part of global batch `step`, counted over all epochs."""
        return rank_slice(self._global_rows(step), *self._part)

    def _gather(self, step: int) -> dict[str, Values]:
        return self._source.gather(self.rows_of(step))

    def _global_rows(self, step: int) -> Rows:
        """From the window that was computed ahead; the values do not depend on the window."""
        epoch, step = divmod(step, self.steps_per_epoch)
        start = step * self.order.batch
        stop = min(start + self.order.batch, self.order.rows)
        known, first, rows = self._known
        if known != epoch or not first <= start or stop > first + len(rows):
            ahead = max(self.order.batch, _AHEAD)
            first, rows = start, order_indices(self.order, epoch, start, start + ahead)
            self._known = epoch, first, rows
        return rows[start - first : stop - first]


def _to_torch(batch: dict[str, Values]) -> Batch:
    import torch

    return {
        name: values if isinstance(values, list) else torch.from_numpy(values)
        for name, values in batch.items()
    }
