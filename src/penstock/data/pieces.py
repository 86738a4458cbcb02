"""The open shards of a split, as one array per column of fixed width and a reader per other one."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.data.cache import Opened
from penstock.data.columns import Array, Column, Values, fixed_values
from penstock.data.order import Rows
from penstock.data.plain import numbers
from penstock.data.strips import Shifts, Strip, shifts
from penstock.data.values import Reader, reader

Numbers = npt.NDArray[np.int64]


class Pieces:
    """What `ShardSource` gathers from. Not safe for threads by itself: `add` and `remove` need to
    be alone, any number may `gather` rows of shards that are there.

    counts  rows of each shard: int64 [shards]
    store   URL of the blob store, for references
    simple  whether `gather` needs no shard numbers once all shards are there
    """

    def __init__(self, columns: Sequence[Column], counts: Numbers, store: str) -> None:
        self._columns = columns
        self._counts = counts
        self._starts = np.cumsum(counts) - counts
        self._store = store
        self._strips: dict[str, Strip | None] = {}  # None: could not be had
        self._shifts: dict[str, Shifts | None] = {}
        self._arrays: dict[str, dict[int, Array]] = {}
        self._readers: dict[str, list[Reader | None]] = {}
        for column in columns:
            if column.fixed:
                self._shifts[column.name] = shifts(column, counts)
            else:
                self._readers[column.name] = [None] * len(counts)

    @property
    def simple(self) -> bool:
        moved = any(shift is not None for shift in self._shifts.values())
        return not (moved or self._readers or self._arrays)

    # shards

    def add(self, number: int, opened: Opened) -> None:
        """A shard was opened. Raises OSError when nothing can be mapped any more."""
        for column in self._columns:
            if not column.fixed:
                array = opened.batch.column(column.name)
                self._readers[column.name][number] = reader(array, column, self._store)
            elif not self._map(column, number, opened):
                self._look(column, number, opened)
        opened.close_handle()
        if not self._readers and not self._arrays:
            opened.forget_batch()  # the strips hold their own maps

    def _map(self, column: Column, number: int, opened: Opened) -> bool:
        """Map a column of a shard from where such shards are known to have it."""
        strip, place = self._strips.get(column.name), opened.places().get(column.name)
        if strip is None or place is None or place % mmap.PAGESIZE:
            return False
        row, rows = self._row(column.name, number), int(self._counts[number])
        strip.map(row, rows, opened.handle, place)
        return True

    def _look(self, column: Column, number: int, opened: Opened) -> None:
        """Find a column's values by Arrow, and put them into its strip, if there is one."""
        values = _values(opened.batch.column(column.name), column)
        place = opened.learn(column.name, values.ctypes.data)
        if (strip := self._strip(column, place or 0)) is None:
            self._arrays.setdefault(column.name, {})[number] = values
        elif not self._map(column, number, opened):
            strip.copy(self._row(column.name, number), values)

    def _strip(self, column: Column, place: int) -> Strip | None:
        """Of a column; made when its first shard is here."""
        if column.name not in self._strips:
            shift = self._shifts[column.name]
            rows = int(self._counts.sum() + (0 if shift is None else shift[-1]))
            try:
                made = Strip(column, rows, place)
            except OSError:  # no addresses, or not Linux: a take per shard
                made = None
            self._strips[column.name] = made
        return self._strips[column.name]

    def _row(self, name: str, number: int) -> int:
        """Of a strip: where a shard begins."""
        shift = self._shifts[name]
        return int(self._starts[number] + (0 if shift is None else shift[number]))

    def remove(self, number: int) -> None:
        """A shard is closed; its rows may not be gathered any more."""
        for name, strip in self._strips.items():
            if strip is not None:
                strip.clear(self._row(name, number), int(self._counts[number]))
        for arrays in self._arrays.values():
            arrays.pop(number, None)
        for readers in self._readers.values():
            readers[number] = None

    def close(self) -> None:
        """Give the addresses back."""
        for strip in self._strips.values():
            if strip is not None:
                strip.close()

    # rows

    def gather(
        self, rows: Rows, shards: Numbers | None, names: Sequence[str] | None = None
    ) -> dict[str, Values]:
        """The rows of shards that are all there, all columns or the named ones.

        shards  of each row; None only if `simple`
        """
        places: list[tuple[int, int]] = []
        columns = [c for c in self._columns if names is None or c.name in names]
        if shards is not None and any(each.name in self._readers for each in columns):
            local = rows - self._starts[shards]
            places = list(zip(shards.tolist(), local.tolist(), strict=True))
        found: dict[str, Values] = {}
        for column in columns:
            name = column.name
            if (strip := self._strips.get(name)) is not None:
                shift = self._shifts[name]
                moved = rows if shift is None or shards is None else rows + shift[shards]
                found[name] = np.take(strip.array, moved, axis=0)
            elif column.fixed and shards is not None:  # no strips, or no shard yet: no rows
                found[name] = self._take(column, self._arrays.get(name, {}), rows, shards)
            else:
                readers = self._readers[name]
                found[name] = [readers[number](row) for number, row in places]  # type: ignore[misc]
        return found

    def _take(self, column: Column, arrays: dict[int, Array], rows: Rows, shards: Numbers) -> Array:
        """Where there are no strips: a take per shard."""
        out = np.empty((len(rows), *column.shape), column.dtype)
        for number in np.unique(shards).tolist():
            at = np.flatnonzero(shards == number)
            out[at] = np.take(arrays[number], rows[at] - self._starts[number], axis=0)
        return out


def _values(array: pa.Array, column: Column) -> Array:
    """A column of fixed width as NumPy [n, *shape]: a view where it lies as NumPy reads it."""
    if array.null_count or pa.types.is_boolean(array.type) or _is_bits(array):
        return fixed_values(array, column)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    flat = array.flatten() if column.shape else array
    return numbers(flat).view(column.dtype).reshape(len(array), *column.shape)


def _is_bits(array: pa.Array) -> bool:
    return isinstance(array.type, pa.FixedShapeTensorType) and pa.types.is_boolean(
        array.type.value_type
    )
