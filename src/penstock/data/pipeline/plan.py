"""Which samples are in which batch: pure functions of the data specification and a step.

Letters: n rows of a source, B global batch, W ranks, b this rank's rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from penstock.data.mixing import Assignment, Mix
from penstock.data.order import Order, Rows, fingerprint, order_rows, rank_slice

Counts = tuple[int, ...]

_AT_ONCE = 1 << 12  # rows whose order is computed at once: most of its cost is saved
_MOST_KNOWN = 256  # steps of a mixture that are remembered


@dataclass(frozen=True, slots=True)
class Picks:
    """This rank's part of one or some consecutive global batches.

    first   the first of these batches, counted over all epochs
    rows    of the source: int64 [b of all these batches]
    epochs  of each row, which keys its randomness: int64, same shape
    cuts    where the batches begin and end in `rows`: [batches + 1]
    padded  rows that only fill up the last batch: bool, same shape; None where none is asked for
    counts  of a mixture: after each batch, samples that each source has given
    like    where this rank has no row of a batch: a row of the plan, which tells its columns; else
            None
    """

    first: int
    rows: Rows
    epochs: Rows
    cuts: Sequence[int]
    padded: npt.NDArray[np.bool_] | None = None
    counts: Sequence[Counts] = ()
    like: int | None = None

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def part(self, first: int, count: int) -> Picks:
        """Of batches first..first+count-1, which are among these."""
        cuts = self.cuts[first - self.first : first - self.first + count + 1]
        start, stop = cuts[0], cuts[-1]
        padded = None if self.padded is None else self.padded[start:stop]
        rows, epochs = self.rows[start:stop], self.epochs[start:stop]
        return Picks(first, rows, epochs, [c - start for c in cuts], padded, like=self.like)

    def of_like(self) -> Picks:
        """A batch of that row alone."""
        padded = None if self.padded is None else np.zeros(1, bool)
        return Picks(
            self.first, np.array([self.like], np.int64), np.zeros(1, np.int64), [0, 1], padded
        )


class Plan(Protocol):
    """What a loader asks. `steps` is of all epochs; None: without end."""

    @property
    def steps(self) -> int | None: ...
    @property
    def steps_per_epoch(self) -> int: ...
    @property
    def fingerprint(self) -> int: ...

    def picks(self, first: int, count: int) -> Picks:
        """Of batches first..first+count-1; of fewer where an epoch ends among them."""
        ...

    def all_rows(self, picks: Picks) -> Rows:
        """The rows of all ranks in the same batches."""
        ...

    def counts(self, step: int) -> Counts:
        """Of a mixture: samples that each source has given before a step; () of anything else."""
        ...

    def recall(self, step: int, counts: Counts) -> None:
        """`counts(step)` was this; saves counting it again."""
        ...


def _has_none(cuts: Sequence[int]) -> bool:
    """Whether one of the batches has no row."""
    return any(start == stop for start, stop in pairwise(cuts))


class OrderPlan:
    """One source in its order.

    chosen  rows of the source that the order counts: int64 [order.rows]; None: all of it
    pad     fill the last batch up with rows from the epoch's beginning
    """

    def __init__(
        self,
        order: Order,
        epochs: int,
        rank: int,
        world_size: int,
        *,
        chosen: Rows | None = None,
        pad: bool = False,
    ) -> None:
        self.order = order
        self.steps = order.steps * epochs
        self.steps_per_epoch = order.steps
        self.fingerprint = order.fingerprint
        self._part = rank, world_size
        self._chosen = chosen
        self._pad = pad
        self._known = Picks(0, np.empty(0, np.int64), np.empty(0, np.int64), [0])

    def picks(self, first: int, count: int) -> Picks:
        known = self._known
        if not known.first <= first or first + count > known.first + len(known):
            epoch, step = divmod(first, self.steps_per_epoch)
            each = -(-self.order.batch // self._part[1])
            more = min(max(count, _AT_ONCE // each), self.steps_per_epoch - step)
            positions, cuts = self._positions(step, more, *self._part)
            rows, padded = self._rows(epoch, positions)
            epochs = np.full(len(rows), epoch, np.int64)
            like = None
            if _has_none(cuts):
                like = int(self._rows(epoch, np.array([step * self.order.batch]))[0][0])
            known = self._known = Picks(first, rows, epochs, cuts, padded, like=like)
        return known.part(first, min(count, known.first + len(known) - first))

    def all_rows(self, picks: Picks) -> Rows:
        epoch, step = divmod(picks.first, self.steps_per_epoch)
        return self._rows(epoch, self._positions(step, len(picks), 0, 1)[0])[0]

    def _positions(
        self, step: int, count: int, rank: int, world_size: int
    ) -> tuple[Rows, list[int]]:
        """The part's positions in the epoch, and where batches begin and end in them."""
        batch, n = self.order.batch, self.order.rows
        whole = count if self._pad else min(count, max(0, n // batch - step))
        part = rank_slice(np.arange(batch), rank, world_size)
        starts = (step + np.arange(whole)) * batch
        positions = (starts[:, None] + part).reshape(-1)
        cuts = list(range(0, len(positions) + 1, len(part))) if len(part) else [0] * (whole + 1)
        if whole < count:  # the short one at the end
            last = rank_slice(np.arange((step + whole) * batch, n), rank, world_size)
            positions = np.concatenate([positions, last])
            cuts.append(len(positions))
        return positions, cuts

    def _rows(self, epoch: int, positions: Rows) -> tuple[Rows, npt.NDArray[np.bool_] | None]:
        padded = positions >= self.order.rows if self._pad else None
        if padded is not None and padded.any():
            positions = positions % self.order.rows
        return self.translated(order_rows(self.order, epoch, positions)), padded

    def translated(self, rows: Rows) -> Rows:
        """Rows that the order counts as rows of the source."""
        return rows if self._chosen is None else np.take(self._chosen, rows)

    def counts(self, step: int) -> Counts:
        return ()

    def recall(self, step: int, counts: Counts) -> None: ...


class MixPlan:
    """Several sources by weights; their rows are numbered one source after the other.

    orders   of each source; B and drop_last are not theirs but the mixture's
    chosen   as of OrderPlan, per source
    offsets  the number of the first row of each source
    """

    def __init__(
        self,
        mix: Mix,
        orders: Sequence[Order],
        epochs: int,
        rank: int,
        world_size: int,
        *,
        batch: int,
        drop_last: bool,
        offsets: Sequence[int],
        chosen: Sequence[Rows | None],
    ) -> None:
        self._assignment = Assignment(mix, batch)
        self._orders, self._offsets, self._chosen = orders, offsets, chosen
        self.orders = dict(zip(mix.names, orders, strict=True))
        self._batch = batch
        self._part = rank, world_size
        self._known: dict[int, Counts] = {}
        rows = [order.rows for order in orders]
        once = self._assignment.end(mix.until or "first", rows)
        total = self._assignment.end(mix.until, [epochs * each for each in rows])
        assert once is not None
        round_up = mix.until == "all" or not drop_last
        self._end = total if round_up and mix.until == "first" else None
        self.steps = None if total is None else -(-total // batch) if round_up else total // batch
        self.steps_per_epoch = max(1, -(-once // batch) if round_up else once // batch)
        facts: list[Any] = [each.fingerprint for each in orders]
        facts += [mix.shares(), mix.until, batch, drop_last]
        self.fingerprint = fingerprint(f"mix/{facts}")

    def picks(self, first: int, count: int) -> Picks:
        whole, ends, after = self._between(first, count)
        kept = []
        cuts = [0]
        for start, stop in zip([0, *ends], ends, strict=False):
            mine = rank_slice(np.arange(start, stop), *self._part)
            kept.append(mine)
            cuts.append(cuts[-1] + len(mine))
        rows, epochs = whole
        mine = np.concatenate(kept)
        like = int(rows[0]) if _has_none(cuts) else None
        return Picks(first, rows[mine], epochs[mine], cuts, None, after, like)

    def all_rows(self, picks: Picks) -> Rows:
        return self._between(picks.first, len(picks))[0][0]

    def _between(self, first: int, count: int) -> tuple[tuple[Rows, Rows], list[int], list[Counts]]:
        """(rows, epochs) of all ranks, where each batch ends, the counts after each."""
        g = first * self._batch
        count = count if self.steps is None else min(count, self.steps - first)
        length = count * self._batch
        if self._end is not None:
            length = min(length, self._end - g)
        counts = self.counts(first)
        sources = self._assignment.sources(g, counts, length)
        rows = np.empty(length, np.int64)
        epochs = np.empty(length, np.int64)
        ends = [min(length, (k + 1) * self._batch) for k in range(count)]
        given = np.empty((count, len(counts)), np.int64)
        for number, count_before in enumerate(counts):
            at = np.flatnonzero(sources == number)
            places = count_before + np.arange(len(at), dtype=np.int64)
            rows[at], epochs[at] = self._of_source(number, places)
            given[:, number] = count_before + np.searchsorted(at, ends)
        after = [tuple(row) for row in given.tolist()]
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        self._known[first + count] = after[-1] if after else counts
        return (rows, epochs), ends, after

    def _of_source(self, number: int, places: Rows) -> tuple[Rows, Rows]:
        """Rows and epochs of the samples that a source gives as its places-th."""
        order, chosen = self._orders[number], self._chosen[number]
        epochs, positions = np.divmod(places, order.rows)
        rows = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs).tolist():
            at = epochs == epoch
            rows[at] = order_rows(order, epoch, positions[at])
        if chosen is not None:
            rows = np.take(chosen, rows)
        return rows + self._offsets[number], epochs

    # where each source stands

    def counts(self, step: int) -> Counts:
        found = self._known.get(step) or self._assignment.counts_at(step * self._batch)
        return self._counted(step) if found is None else found

    def recall(self, step: int, counts: Counts) -> None:
        if sum(counts) == step * self._batch and len(counts) == len(self._orders):
            self._known = {step: counts}

    def _counted(self, step: int) -> Counts:
        """Counted from the nearest step before that is known."""
        start = max((known for known in self._known if known <= step), default=0)
        counts = self._known.get(start, (0,) * len(self._orders))
        while start < step:
            some = min(step - start, max(1, 4096 // self._batch))
            sources = self._assignment.sources(start * self._batch, counts, some * self._batch)
            more = np.bincount(sources, minlength=len(counts)).tolist()
            counts = tuple(a + b for a, b in zip(counts, more, strict=True))
            start += some
        return counts
