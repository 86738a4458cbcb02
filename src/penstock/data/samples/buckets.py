"""Batches of similar length, in an order that stays a function.

The rows are sorted by length once (stable: rows of equal length as they lie), and the loader
shuffles this sorted order in windows of `batches` whole batches: the windows among each other, and
the rows within each. So a batch holds rows of similar length, every row comes once an epoch,
batches differ from epoch to epoch, and where a run stands is the same few integers as ever.

In a batch (b rows, T the longest of them, or as `multiple` and `boundaries` say):

    X         [b, T]       every column of lists, `pad_id` where a row is shorter
    pad_mask  bool [b, T]  True where column `by` is padding (where it is one of lists)

`gather` gives the rows with lists as they are, so that a map sees no padding; `assemble`, which the
loader calls last, pads them. Ranks pad their parts on their own, so T may differ between ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.hashing import digest_json
from penstock.data.columns import Array, Column, Values
from penstock.data.order import Rows
from penstock.data.samples import reading
from penstock.data.samples.essence import essence
from penstock.data.samples.index import kept, numbers

if TYPE_CHECKING:
    from penstock.data.source import Source

FORMAT = "penstock-buckets-1"
MASK = "pad_mask"


@dataclass(frozen=True, slots=True)
class Buckets:
    """Rows of similar length together; see the top of the file.

    by          column of lists or text, whose lengths count, or of whole numbers that are lengths
    boundaries  rising lengths; rows up to each are a bucket, sorted no further, and padded to it,
                so there are few shapes. None: by the length itself
    batches     that are shuffled together; 1: least padding, but always the same batches
    pad_id      what fills a row up
    multiple    T is rounded up to one of it (without boundaries)
    """

    by: str = "tokens"
    boundaries: Sequence[int] | None = None
    batches: int = 16
    pad_id: int = 0
    multiple: int = 1

    def __post_init__(self) -> None:
        for name in ("batches", "multiple"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise BadInput(f"{name} is {value!r}", "Give a whole number from 1.")
        if self.boundaries is not None:
            found = tuple(self.boundaries)
            object.__setattr__(self, "boundaries", found)
            if not found or found[0] < 1 or list(found) != sorted(set(found)):
                raise BadInput(
                    f"boundaries {list(found)} do not rise", "Give lengths such as (64, 256, 1024)."
                )

    def window_rows(self, batch_size: int) -> int:
        """Rows of a window, for a loader with shuffle="window"."""
        return self.batches * batch_size


class BucketSource:
    """The rows in order of their lengths.

    lengths  int64 [n], of the rows in this order

    Keeps eight bytes twice per row, mapped. Owns the source given to it: `close` closes it.
    """

    def __init__(self, spec: Buckets, source: Source, *, folder: Path | None = None) -> None:
        """folder  where the index is kept; None: nowhere. Raises BadInput, NotFound."""
        self._spec = spec
        self._source = source
        self._lists = [each for each in reading.columns_of(source) if each.kind == "list"]
        column = reading.column_of(source, spec.by, "the column of lengths")
        self.columns = reading.columns_of(source)
        self.identity = digest_json([FORMAT, source.identity, essence(spec)])
        key = [FORMAT, source.identity, spec.by, spec.boundaries]
        table = kept(folder, key, lambda: _index(spec, source, column))
        self._rows, self.lengths = numbers(table, "row"), numbers(table, "length")

    def __len__(self) -> int:
        return len(self._rows)

    def window_rows(self, batch_size: int) -> int:
        """Rows of a window, for a loader with shuffle="window"."""
        return self._spec.window_rows(batch_size)

    def gather(self, rows: Rows) -> dict[str, Values]:
        """These rows of the sorted order; lists as they are."""
        return self._source.gather(self._rows[rows])

    def assemble(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch of gathered rows with its lists padded to one length: see the top of the file.

        The loader calls it last, once for each batch. Columns that a map has left out or changed
        into something else stay as they are.
        """
        made = dict(batch)
        for column in self._lists:
            lists: Any = batch.get(column.name)
            if not _are_lists(lists):
                continue
            sizes = reading.lengths(lists)
            padded = _padded(lists, sizes, self._width(sizes), column, self._spec.pad_id)
            made[column.name] = padded
            if column.name == self._spec.by:
                made[MASK] = np.arange(padded.shape[1]) >= sizes[:, None]
        return made

    def padding(self, batches: Sequence[Rows]) -> float:
        """The share of padding when these rows (`Loader.rows_of`) are batches; 0..1."""
        places = sum(len(rows) * self._width(self.lengths[rows]) for rows in batches if len(rows))
        return 1 - sum(int(self.lengths[rows].sum()) for rows in batches) / max(1, places)

    def _width(self, sizes: Rows) -> int:
        longest = int(sizes.max()) if len(sizes) else 0
        if self._spec.boundaries is not None:
            bounds = np.array(self._spec.boundaries)
            at = int(np.searchsorted(bounds, longest))
            return int(bounds[at]) if at < len(bounds) else longest
        return -(-longest // self._spec.multiple) * self._spec.multiple

    @property
    def bounded(self) -> bool:
        """Whether it matters what is done: see `ShardSource`."""
        return reading.bounded(self._source)

    def ahead(self, rows: Rows) -> None:
        """These rows are wanted soon."""
        reading.hint(self._source, "ahead", self._rows[rows])

    def done(self, rows: Rows) -> None:
        """These rows are not wanted again in this epoch."""
        reading.hint(self._source, "done", self._rows[rows])

    def close(self) -> None:
        reading.close(self._source)


def _are_lists(values: Any) -> bool:
    """One-dimensional arrays, or an array of such that were equally long; missing ones too."""
    if isinstance(values, np.ndarray):
        return values.ndim == 2
    arrays = (value for value in values or () if value is not None)
    return isinstance(values, list) and all(getattr(each, "ndim", 0) == 1 for each in arrays)


def _padded(lists: Any, sizes: Rows, width: int, column: Column, pad_id: int) -> Array:
    out = np.full((len(lists), width), pad_id, np.dtype(column.dtype))
    if sizes.any():
        there = [each for each in lists if each is not None]
        out[np.arange(width) < sizes[:, None]] = np.concatenate(there)
    return out


def _index(spec: Buckets, source: Source, column: Column) -> pa.Table:
    lengths = _lengths(source, column)
    if not len(lengths):
        raise BadInput("there are no rows to put into buckets", "Is the split empty?")
    sort_by = lengths
    if spec.boundaries is not None:
        sort_by = np.searchsorted(np.array(spec.boundaries), lengths)
        if (beyond := np.flatnonzero(sort_by == len(spec.boundaries))).size:
            row = int(beyond[0])
            raise BadInput(
                f"row {row} has length {lengths[row]}, beyond the last boundary "
                f"{spec.boundaries[-1]}, and {len(beyond) - 1} more rows have",
                "Add a boundary, or cut such rows when the dataset is prepared.",
                row=row,
                rows=len(beyond),
            )
    order = np.argsort(sort_by, kind="stable")
    return pa.table({"row": order, "length": lengths[order]})


def _lengths(source: Source, column: Column) -> Rows:
    if column.kind != "number" or not column.dtype.startswith(("int", "uint")):
        return reading.lengths_of(source, column)
    found = [arrays[column.name] for _, arrays in reading.blocks(source, [column])]
    counts = [each.to_numpy(zero_copy_only=False).astype(np.int64) for each in found]
    lengths = np.concatenate([np.empty(0, np.int64), *counts])
    if len(lengths) and lengths.min() < 0:
        row = int(lengths.argmin())
        raise BadInput(
            f'row {row} has length {lengths[row]} in column "{column.name}"',
            "A length is 0 or more.",
            row=row,
        )
    return lengths
