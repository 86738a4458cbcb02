"""Where a loader's rows come from: anything with a length that gathers rows by number.

`ShardSource` gathers from the shards of a dataset version. A map-style torch Dataset, a mixture or
windows over episodes fit the same protocol.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.base.errors import BadInput, Damaged, NotFound, Unavailable
from penstock.base.layout import Layout
from penstock.base.nearest import did_you_mean
from penstock.blobs import Blobs
from penstock.data.cache import Counters, Opened, ShardCache
from penstock.data.cache.ahead import Ahead
from penstock.data.columns import Column, Values
from penstock.data.manifest import Manifest
from penstock.data.order import Rows
from penstock.data.pieces import Pieces

_FEW = 64  # shards
_STALL = 1_000_000  # ns; opening a shard that is there takes less
_MOST_MAPS = 24_000  # of one source; the kernel allows a process 65,530 (vm.max_map_count)


class Source(Protocol):
    """Rows 0..len-1; the same number always gives the same sample.

    A source may leave out all but the first three: hints default to nothing.
    """

    @property
    def identity(self) -> str:
        """What keys the order: equal for equal samples in equal order, wherever they lie."""
        ...

    def __len__(self) -> int: ...

    def gather(self, rows: Rows) -> dict[str, Values]:
        """These rows in this order: column -> new array [len(rows), *shape], or a list."""
        ...

    @property
    def columns(self) -> Sequence[Column]:
        """What `gather` gives, in order."""
        ...

    def ahead(self, rows: Rows) -> None:
        """A hint: these rows are wanted soon, in this order."""

    def done(self, rows: Rows) -> None:
        """A hint: no process wants these rows again in this epoch."""

    def close(self) -> None:
        """Let go of threads, maps and files. Nothing may be asked of it afterwards."""


class ShardSource:
    """The rows of one split, gathered from memory-mapped shards that are opened on first use.

    limit  bytes of the node's cache, for tests; default: the setting

    A batch owns its memory: each value is copied once, from the map into the batch. Shards stay
    mapped (address space, not memory) while all of them fit into half of the cache; beyond, those
    go that `done` named, then those not used for longest. Threads may gather at the same time.
    Owns the maps and the threads that `ahead` starts; they end with `close`, or with it.
    """

    def __init__(
        self,
        blobs: Blobs,
        layout: Layout,
        manifest: Manifest,
        split: str,
        *,
        columns: Sequence[str] | None = None,
        name: str = "",
        limit: int | None = None,
    ) -> None:
        found = manifest.split(split)
        self._where = name or manifest.called, split
        self._rows = found.rows
        self._columns = chosen(manifest, columns)
        _refuse_gaps(manifest, self._columns)
        self.identity = f"{found.digest}/{split}"
        self._shards = manifest.shards_of(split)
        self._ends = manifest.ends_of(split)
        self._counts = np.diff(self._ends, prepend=0)
        self._each = _each(self._counts)
        dataset = self._where[0].split("@", 1)[0]
        self._cache = ShardCache(blobs, layout.shards_of(dataset), limit)
        self._pieces = Pieces(self._columns, self._counts, blobs.url)
        self._gate = threading.Lock()
        self._inside = 0  # threads that gather now: nothing is unmapped meanwhile
        self._closed = False
        self._open: dict[int, Opened] = {}
        self._is_open = np.zeros(len(self._shards), bool)
        self._ready = False  # every shard is open, and rows are places in the strips
        self._used = np.zeros(len(self._shards), np.int64)  # when it was gathered from last
        self._past = np.zeros(len(self._shards), np.int64)  # rows that are done
        self._behind: set[int] = set()
        self._now = 0
        self._taken = 0  # bytes of disk or memory, beside the blob store
        self._budget = -1  # of them; until it is asked for
        self._ahead: Ahead | None = None

    @property
    def columns(self) -> Sequence[Column]:
        return self._columns

    def __len__(self) -> int:
        return self._rows

    # gathering

    def gather(self, rows: Rows) -> dict[str, Values]:
        """One `take` per column of fixed width. Raises Damaged, naming split and shard.

        Raises IndexError for a row that is not there.
        """
        return self.pick(rows, None)

    def pick(self, rows: Rows, names: Sequence[str] | None) -> dict[str, Values]:
        """As `gather`, of the named columns alone."""
        with self._gate:
            self._enter()
        try:
            numbers = None
            if not self._ready:
                numbers = self._numbers(rows)
                self._open_all(numbers)
            return self._pieces.gather(rows, numbers, names)
        finally:
            with self._gate:
                self._inside -= 1
                if self._closed and not self._inside:
                    self._release()

    def scan(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows of some columns, a batch per shard, as they are kept in the node's cache.

        Raises Damaged, naming split and shard.
        """
        for number in range(len(self._shards)):
            with shard_errors(*self._where, number):
                opened = self._cache.open(self._shards[number])
            try:
                yield opened.batch.select(list(names))
            finally:
                self._cache.close(opened)

    def _numbers(self, rows: Rows) -> npt.NDArray[np.int64]:
        """The shard of each row: int64 [len(rows)]."""
        if len(rows) and rows.view(np.uint64).max() >= self._rows:  # below 0 is very large
            raise IndexError(f"rows 0..{self._rows - 1} are there, not {rows.min()}..{rows.max()}")
        if self._each:
            return rows // self._each
        return np.searchsorted(self._ends, rows, side="right")

    def _enter(self) -> None:
        if self._closed:
            raise BadInput("rows were asked of a source that is closed", "Open it again.")
        if self._behind and not self._inside:
            for number in self._behind & self._open.keys():
                self._shut(number, done=True)
            self._behind.clear()
        self._inside += 1

    def _open_all(self, numbers: npt.NDArray[np.int64]) -> None:
        closed = numbers[~self._is_open[numbers]]
        for number in dict.fromkeys(closed.tolist()):
            self._open_one(number)
        if self._limited:
            self._make_room(self._mark(numbers))

    def _open_one(self, number: int) -> None:
        began = time.monotonic_ns()
        shard = self._shards[number]
        with shard_errors(*self._where, number):
            held = "" if self._ahead is None else self._ahead.take(number)
            try:
                opened = self._cache.open(shard)
            finally:
                self._cache.release(held)
        waited = time.monotonic_ns() - began
        if waited > _STALL:
            self._cache.stalled(waited)
        with self._gate:
            if number in self._open:  # another thread was faster
                self._cache.close(opened)
                return
            try:
                self._pieces.add(number, opened)
            except OSError as error:
                self._cache.close(opened)
                raise Unavailable(
                    f"no shard can be mapped any more: {error.strerror}",
                    "Raise vm.max_map_count, or the process's limit of memory (ulimit -v).",
                    shards=len(self._open),
                ) from None
            self._open[number] = opened
            self._taken += opened.bytes
            self._is_open[number] = True
            whole = self._pieces.simple and len(self._open) == len(self._is_open)
            self._ready = whole and not self._limited

    # how much is open

    @property
    def _limited(self) -> bool:
        """Whether not all shards of the split can stay open."""
        if self._budget < 0:
            self._budget = max(1, self._cache.limit // 2)
            sizes = int(self._shards.numbers("bytes").sum())
            self._may_stay = sizes <= self._budget and len(self._shards) <= self._most_open
        return not self._may_stay or self._taken > self._budget

    @property
    def _most_open(self) -> int:
        return max(16, _MOST_MAPS // (1 + len(self._columns)))

    def _mark(self, numbers: npt.NDArray[np.int64]) -> int:
        """Note that these shards are gathered from now; returns the time, which only rises."""
        with self._gate:
            self._now += 1
            self._used[numbers] = self._now
            return self._now

    def _make_room(self, now: int) -> None:
        """Close what was not used for longest, but nothing of the batch that was marked `now`
        (others may have come and gone since), and only if nobody else reads."""
        with self._gate:
            if self._inside > 1 or self._fits():
                return
            for number in sorted(self._open, key=lambda n: int(self._used[n])):
                if self._fits() or self._used[number] >= now:
                    return
                self._shut(number, done=False)

    def _fits(self) -> bool:
        return self._taken <= self._budget and len(self._open) <= self._most_open

    def _shut(self, number: int, *, done: bool) -> None:
        self._is_open[number] = self._ready = False
        opened = self._open.pop(number)
        self._taken -= opened.bytes
        self._pieces.remove(number)
        self._cache.close(opened, done=done)

    # hints

    def ahead(self, rows: Rows) -> None:
        """Bring the shards of these rows to the node, in this order; at once, by threads."""
        if self.complete:
            return
        wanted = self._in_order(rows)
        if len(wanted) <= _FEW:  # a look at each is cheaper than threads that find nothing to do
            wanted = [n for n in wanted if not self._cache.maps_in_place(self._shards[n])]
        if wanted:
            self._want(wanted)

    @property
    def complete(self) -> bool:
        """Whether every shard is open now: there is nothing to bring ahead."""
        return len(self._open) == len(self._is_open)

    def _in_order(self, rows: Rows) -> list[int]:
        """Shards that are not open, as these rows come to them; without sorting the rows."""
        numbers = self._numbers(rows)
        first = np.full(len(self._is_open), len(rows), np.int64)
        first[numbers[::-1]] = np.arange(len(rows))[::-1]  # of equal ones the last write stays
        first[self._is_open] = len(rows)
        order: list[int] = np.argsort(first, kind="stable").tolist()
        return order[: np.count_nonzero(first < len(rows))]

    def _want(self, numbers: Iterable[int]) -> None:
        if self._ahead is None and not self._closed:
            sizes = self._shards.numbers("bytes")
            cache, shards = self._cache, self._shards
            self._ahead = Ahead(
                lambda number: cache.bring(shards[number]),
                cache.release,
                lambda number: int(sizes[number]),
                max(1, self._cache.limit // 2),
            )
        if self._ahead is not None:
            self._ahead.want(numbers)

    def done(self, rows: Rows) -> None:
        """A shard of which all rows are done is closed and goes first when the cache is full.

        rows  of all ranks, as often as they were gathered in this epoch: once
        """
        if not self._limited:
            return
        self._past += np.bincount(self._numbers(rows), minlength=len(self._past))
        behind = np.flatnonzero(self._past >= self._counts)
        self._past[behind] = 0
        with self._gate:
            self._behind.update(behind.tolist())

    @property
    def bounded(self) -> bool:
        """Whether `done` changes anything: not all shards of the split can stay open."""
        return self._limited

    def counters(self) -> Counters:
        """What the cache did for this source."""
        return self._cache.counters()

    # ending

    def close(self) -> None:
        """Waits for the threads of `ahead`; whoever gathers now gets the batch still."""
        self._end(wait=True)

    def __del__(self) -> None:
        # When Python ends, threads stop wherever they are, with the locks that they hold.
        if hasattr(self, "_ahead") and not sys.is_finalizing():
            self._end(wait=False)

    def _end(self, *, wait: bool) -> None:
        if self._ahead is not None:
            self._ahead.close(wait=wait)
        with self._gate:
            self._closed = True
            if not self._inside:
                self._release()

    def _release(self) -> None:
        for number in list(self._open):
            self._shut(number, done=False)
        self._pieces.close()
        self._cache.flush()


class shard_errors:  # noqa: N801 - reads like the verb it is
    """Context: what keeps a shard from being read names dataset, split and shard.

    A damaged or lost blob becomes Damaged; a store that does not serve stays what it is.
    """

    def __init__(self, dataset: str, split: str, number: int) -> None:
        self._where = dataset, split, number

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Damaged | NotFound | Unavailable):
            return
        dataset, split, number = self._where
        told = f'shard {number} of split "{split}" of dataset {dataset}'
        facts = {**error.facts, "dataset": dataset, "split": split, "shard": number}
        if isinstance(error, Unavailable):
            raise type(error)(f"{told} cannot be read: {error.what}", error.fix, **facts) from error
        lost = "is gone" if isinstance(error, NotFound) else "is damaged"
        raise Damaged(
            f"{told} {lost}: {error.what}",
            "Restore the blob from a good copy, or run prepare with fresh=True, which writes it "
            "again; no batch of it was given out.",
            **facts,
        ) from error


def _each(counts: npt.NDArray[np.int64]) -> int:
    """How many rows every shard has, the last one at most; 0 when they differ."""
    first = int(counts[0]) if len(counts) else 0
    return first if (counts[:-1] == first).all() and (counts[-1:] <= first).all() else 0


def chosen(manifest: Manifest, columns: Sequence[str] | None) -> list[Column]:
    """The named columns in the schema's order; all when none are named. NotFound."""
    if columns is None:
        return list(manifest.columns)
    for name in columns:
        if name not in manifest.schema:
            raise NotFound(
                f'dataset {manifest.called} has no column "{name}"',
                did_you_mean(name, manifest.schema),
                column=name,
            )
    return [each for each in manifest.columns if each.name in columns]


def _refuse_gaps(manifest: Manifest, columns: Sequence[Column]) -> None:
    """A tensor of whole numbers has no place for a missing value: say so before training."""
    for column in columns:
        found = manifest.statistics.get(column.name)
        if found and found.nulls and column.fixed and not column.dtype.startswith("float"):
            raise BadInput(
                f'column "{column.name}" has {found.nulls} missing values, which a tensor of '
                f"{column.dtype} cannot hold",
                "Fill them in the prepare function, or leave the column out with columns=[…].",
                column=column.name,
            )
