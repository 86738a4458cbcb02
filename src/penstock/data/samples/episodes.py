"""Where the episodes of a split lie and when their rows were: read once, from two columns.

An episode's rows lie together, in order of time; anything else is one error that names episode
and row. Kept is one line per episode, and (only for windows in seconds and for streams) eight
bytes per row, mapped, not loaded:

    ticks[row] = base[episode] + (time[row] - time of the episode's first row)   nanoseconds

where the bases leave no gap between episodes, so that all rows of a split are one increasing
array, in which one search finds the rows of many episodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.base.errors import BadInput
from penstock.data import plain
from penstock.data.columns import Array, Column, one_chunk
from penstock.data.order import Rows
from penstock.data.samples import reading
from penstock.data.samples.index import kept, numbers
from penstock.data.samples.windows import NANOSECONDS

if TYPE_CHECKING:
    from penstock.data.source import Source

_FORMAT = "penstock-episodes-1"
_MOST_NS = 2.0**62  # a time beyond it (146 years before or after the epoch's) is none of ours


@dataclass(frozen=True, slots=True)
class Episodes:
    """E episodes of n rows.

    names  [E] as they are in the episode column
    first  int64 [E + 1], the row where each begins; last: n
    began  int64 [E], time of the first row, nanoseconds
    base   int64 [E + 1], tick of the first row
    ticks  int64 [n]; empty when times were not asked for
    """

    names: pa.Array
    first: Rows
    began: Rows
    base: Rows
    ticks: Rows

    def __len__(self) -> int:
        return len(self.names)

    def of_rows(self, rows: Rows) -> Rows:
        """The episodes (0..E-1) that hold these rows."""
        return np.searchsorted(self.first, rows, side="right") - 1

    def ended(self, episodes: Rows) -> Rows:
        """When the last rows of these episodes were: nanoseconds."""
        lasted: Rows = self.base[episodes + 1] - self.base[episodes] - 1
        return self.began[episodes] + lasted

    def times(self, rows: Rows, episodes: Rows) -> Rows:
        """When these rows of these episodes were: nanoseconds."""
        found: Rows = self.ticks[rows] - self.base[episodes] + self.began[episodes]
        return found

    def newest(self, episodes: Rows, times: Rows) -> Rows:
        """For each (episode, time) the last row not later; first row - 1 where all are later."""
        base = self.base[episodes]
        wanted = times + (base - self.began[episodes])
        np.clip(wanted, base - 1, self.base[episodes + 1] - 1, out=wanted)
        return np.searchsorted(self.ticks, wanted, side="right") - 1

    def named(self, names: pa.Array) -> Rows:
        """The numbers of the episodes of these names; -1 where there is none."""
        found = pc.index_in(names.cast(self.names.type), value_set=self.names)
        return np.where(plain.present(found), plain.numbers(found), -1).astype(np.int64)


def episodes_of(
    source: Source,
    episode: str,
    time: str | None,
    time_unit: str,
    *,
    times: bool,
    folder: Path | None,
) -> Episodes:
    """The episodes of a source; computed once, then kept in `folder` (see index.py).

    times  whether `ticks` are wanted
    Raises NotFound (a column), BadInput (episodes in pieces, times out of order or missing).
    """
    columns = [_episode_column(source, episode)]
    if time is not None:
        columns.append(_time_column(source, time))
    names = [each.name for each in columns]
    key = [_FORMAT, source.identity, names, time_unit]
    made: list[_Made] = []

    def make() -> _Made:
        if not made:
            made.append(_Builder(source, columns, time_unit, times).build())
        return made[0]

    lines = kept(folder, [*key, "episodes"], lambda: make().lines)
    ticks = kept(folder, [*key, "ticks"], lambda: make().ticks) if times else None
    return Episodes(
        names=one_chunk(lines["name"]),
        first=np.append(numbers(lines, "first"), len(source)),
        began=numbers(lines, "began"),
        base=np.append(numbers(lines, "base"), _end_of(lines)),
        ticks=np.empty(0, np.int64) if ticks is None else numbers(ticks, "tick"),
    )


def _end_of(lines: pa.Table) -> int:
    return int(lines["base"][-1].as_py()) + int(lines["lasted"][-1].as_py()) + 1


def _episode_column(source: Source, name: str) -> Column:
    column = reading.column_of(source, name, "the episode column")
    if column.kind not in ("number", "text", "bytes") or column.dtype.startswith("float"):
        raise BadInput(
            f'the episode column "{name}" is {column}, which cannot name episodes',
            "Name episodes by whole numbers or text.",
            column=name,
        )
    return column


def _time_column(source: Source, name: str) -> Column:
    column = reading.column_of(source, name, "the time column")
    clock = column.kind == "time" and column.dtype.startswith(("timestamp", "duration"))
    if not clock and (column.kind != "number" or column.dtype == "bool"):
        raise BadInput(
            f'the time column "{name}" is {column}, which is no time',
            "Keep timestamps, or numbers that count from anywhere (time_unit says in what).",
            column=name,
        )
    return column


@dataclass(frozen=True, slots=True)
class _Made:
    lines: pa.Table
    ticks: pa.Table


class _Builder:
    """One pass over two columns, in blocks."""

    def __init__(self, source: Source, columns: list[Column], time_unit: str, times: bool) -> None:
        self._source = source
        self._episode, self._time = columns[0], columns[1] if len(columns) > 1 else None
        self._unit = time_unit
        self._names: list[pa.Array] = []
        self._first: list[Rows] = []
        self._began: list[Rows] = []
        self._ended: list[Rows] = []
        self._times: list[Rows] | None = [] if times else None
        self._last_name: pa.Scalar | None = None
        self._last_time = np.empty(0, np.int64)

    def build(self) -> _Made:
        columns = [self._episode, *([self._time] if self._time else [])]
        for start, found in reading.blocks(self._source, columns):
            self._add(start, found)
        if not self._first:
            raise BadInput("there are no rows to make windows of", "Is the split empty?")
        self._ended.append(self._last_time)
        first = np.concatenate(self._first)
        began, ended = np.concatenate(self._began), np.concatenate(self._ended)
        named = pa.concat_arrays(self._names)
        self._refuse_pieces(named, first)
        lasted = ended - began
        base = np.concatenate([[0], np.cumsum(lasted + 1)[:-1]])
        lines = {"name": named, "first": first, "began": began, "lasted": lasted, "base": base}
        return _Made(pa.table(lines), self._as_ticks(first, base - began))

    def _add(self, start: int, found: dict[str, pa.Array]) -> None:
        names = found[self._episode.name]
        self._refuse_nameless(names, start)
        begins = np.ones(len(names), bool)
        if len(names) > 1:
            differ = pc.not_equal(names.slice(1), names.slice(0, len(names) - 1))
            begins[1:] = differ.to_numpy(zero_copy_only=False)
        if self._last_name is not None:
            begins[0] = not names[0].equals(self._last_name)
        at = np.flatnonzero(begins)
        times = np.zeros(len(names), np.int64)
        if self._time is not None:
            times = self._as_nanoseconds(found[self._time.name], start)
            self._refuse_disorder(times, begins, names, start)
        before = np.concatenate([self._last_time if start else times[:1], times[:-1]])
        self._names.append(names.take(pa.array(at)))
        self._first.append(at + start)
        self._began.append(times[at])
        self._ended.append(before[at] if start else before[at[1:]])
        self._last_name, self._last_time = names[-1], times[-1:]
        if self._times is not None:
            self._times.append(times)

    def _refuse_nameless(self, array: pa.Array, start: int) -> None:
        if array.null_count:
            row = start + int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
            raise BadInput(
                f'row {row} has no value in the episode column "{self._episode.name}"',
                "Name the episode of every row.",
                row=row,
            )

    def _as_nanoseconds(self, values: pa.Array, start: int) -> Rows:
        assert self._time is not None
        scaled = _scaled(values, self._unit)
        wrong = ~(np.abs(scaled) < _MOST_NS)  # also what is not a number
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise BadInput(
                f'row {start + row} has no usable time in column "{self._time.name}": '
                f"{reading.plain(values[row])}",
                f'Times are numbers in "{self._unit}" (say another with time_unit), never missing.',
                row=start + row,
            )
        return scaled if scaled.dtype == np.int64 else np.rint(scaled).astype(np.int64)

    def _refuse_disorder(self, times: Rows, begins: Any, names: pa.Array, start: int) -> None:
        before = np.concatenate([self._last_time if start else times[:1] - 1, times[:-1]])
        wrong = np.flatnonzero((times <= before) & ~begins)
        if not len(wrong):
            return
        row, name = int(wrong[0]), names[int(wrong[0])].as_py()
        assert self._time is not None
        raise BadInput(
            f"timestamps out of order in episode {name!r}: row {start + row} "
            f"({self._time.name} {times[row] / 1e9:.9g} s) is not later than the row before it "
            f"({before[row] / 1e9:.9g} s)",
            "Sort the rows by episode and time when the dataset is prepared; no two rows of an "
            "episode have one time.",
            episode=name,
            row=start + row,
        )

    def _refuse_pieces(self, names: pa.Array, first: Rows) -> None:
        if pc.count_distinct(names).as_py() == len(names):
            return
        seen: dict[Any, int] = {}
        for name, row in zip(names.to_pylist(), first.tolist(), strict=True):
            if seen.setdefault(name, row) != row:
                raise BadInput(
                    f"episode {name!r} lies in pieces: it began at row {seen[name]} and begins "
                    f"again at row {row}",
                    "Sort the rows by episode and time when the dataset is prepared.",
                    episode=name,
                    row=row,
                )

    def _as_ticks(self, first: Rows, offset: Rows) -> pa.Table:
        if not self._times:
            return pa.table({"tick": pa.array([], pa.int64())})
        times = np.concatenate(self._times)
        times += np.repeat(offset, np.diff(np.append(first, len(times))))
        return pa.table({"tick": times})


def _scaled(values: pa.Array, unit: str) -> Array:
    """Nanoseconds: int64 where they are whole, float64 (NaN where one is missing) otherwise."""
    if pa.types.is_temporal(values.type):
        unit, values = values.type.unit, values.cast(pa.int64())
    array: Array = values.to_numpy(zero_copy_only=False)
    largest = float(np.abs(array.astype(np.float64)).max()) if len(array) else 0.0
    if array.dtype.kind in "iu" and largest * NANOSECONDS[unit] < _MOST_NS:
        return array.astype(np.int64) * NANOSECONDS[unit]
    scaled: Array = array.astype(np.float64) * NANOSECONDS[unit]
    return scaled


def match(base: Episodes, other: Episodes, stream: str) -> Rows:
    """For each episode of the windows its number in a stream, -1 where it has none."""
    try:
        return other.named(base.names)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise BadInput(
            f'stream "{stream}" names its episodes in {other.names.type}, the windows in '
            f"{base.names.type}",
            "Name episodes alike in both datasets.",
            stream=stream,
        ) from None


def shown(names: pa.Array, most: int = 5) -> str:
    """Some names of episodes, for messages."""
    few: Iterable[Any] = names.slice(0, most).to_pylist()
    return ", ".join(map(repr, few)) + (", …" if len(names) > most else "")
