"""Windows over episodes as a source: sample i is the i-th moment, in order of the rows.

Moments are kept as runs (first row, rows, episode): one per episode, or what `pad="drop"` leaves
of it, so memory follows the episodes, not the samples. A batch becomes one matrix of row numbers
[b, T] for every part (history, horizon, streams) and one `gather` of each; nothing is done per
sample in Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.base.hashing import digest_json
from penstock.base.log import facts, logger
from penstock.data.columns import Column, Values
from penstock.data.order import Rows
from penstock.data.samples import reading
from penstock.data.samples.episodes import Episodes, episodes_of, match, shown
from penstock.data.samples.index import kept, numbers
from penstock.data.samples.naming import named, named_stream, said
from penstock.data.samples.windows import (
    Stream,
    Windows,
    offsets_in_rows,
    offsets_in_time,
    period,
)

if TYPE_CHECKING:
    from penstock.data.source import Source

Mask = npt.NDArray[np.bool_]

FORMAT = "penstock-windows-1"
_SLACK = 100_000  # nanoseconds: times that differ by less (clocks kept as float32) are one time
_AT_ONCE = 1 << 16  # moments whose padding is computed at once for pad="drop"
_log = logger("data")


@dataclass(frozen=True, slots=True)
class ByRow:
    """Rows at fixed distances from the moment's. offsets  int64 [T]"""

    episodes: Episodes
    offsets: Rows

    def find(self, rows: Rows, episodes: Rows) -> tuple[Rows, Mask]:
        """Row numbers [b, T] inside the episode, and where that is padding."""
        wanted = rows[:, None] + self.offsets
        first = self.episodes.first[episodes][:, None]
        last = self.episodes.first[episodes + 1][:, None] - 1
        found = np.clip(wanted, first, last)
        return found, found != wanted


@dataclass(frozen=True, slots=True)
class ByTime:
    """Rows at fixed times from the moment's, in an episode of the same name.

    base       of the windows
    stream     where rows are sought; `numbers` are base's episodes in it
    offsets    int64 [T], nanoseconds
    tolerance  nanoseconds; None: any
    """

    base: Episodes
    stream: Episodes
    numbers: Rows
    offsets: Rows
    slack: int
    nearest: bool
    tolerance: int | None

    def find(self, rows: Rows, episodes: Rows) -> tuple[Rows, Mask]:
        """Row numbers [b, T] of the stream, and where that is padding."""
        wanted = self.base.times(rows, episodes)[:, None] + self.offsets
        began, ended = self.base.began[episodes], self.base.ended(episodes)
        padding = wanted < (began - self.slack)[:, None]
        padding |= wanted > (ended + self.slack)[:, None]
        number = self.numbers[episodes]
        padding |= (number < 0)[:, None]
        number = np.maximum(number, 0)[:, None]
        first, last = self.stream.first[number], self.stream.first[number + 1] - 1
        found = self.stream.newest(number, wanted + self.slack)
        none = found < first
        found = np.clip(found, first, last)
        if self.nearest:
            later = np.minimum(found + 1, last)
            distance = np.abs(self.stream.times(found, number) - wanted)
            better = np.abs(self.stream.times(later, number) - wanted) < distance
            found = np.where(better, later, found)
        else:
            padding |= none
        if self.tolerance is not None:
            distance = np.abs(self.stream.times(found, number) - wanted)
            padding |= distance > self.tolerance + self.slack
        return found, padding


@dataclass(frozen=True, slots=True)
class Part:
    """One matrix of rows and what is gathered there.

    source  of these columns alone
    names   column -> its name in the batch
    mask    name of the padding mask in the batch
    """

    source: reading.Picked
    where: ByRow | ByTime
    names: dict[str, str]
    mask: str

    @property
    def ends(self) -> ByRow | ByTime:
        """Of the first and last row alone."""
        return replace(self.where, offsets=self.where.offsets[[0, -1]])

    def columns(self) -> list[Column]:
        steps = len(self.where.offsets)
        mask = Column(self.mask, "tensor", "bool", (steps,))
        return [*(_windowed(each, self.names, steps) for each in self.source.columns), mask]

    def gather(self, rows: Rows, episodes: Rows, zero: bool) -> dict[str, Values]:
        found, padding = self.where.find(rows, episodes)
        flat = self.source.gather(found.reshape(-1))
        padded = bool(zero and padding.any())
        batch = {
            self.names[name]: _shaped(values, found.shape, padding if padded else None)
            for name, values in flat.items()
        }
        return {**batch, self.mask: padding}


def _windowed(column: Column, names: dict[str, str], steps: int) -> Column:
    kind = "tensor" if column.fixed else column.kind
    return replace(column, name=names[column.name], kind=kind, shape=(steps, *column.shape))


def _shaped(values: Values, shape: tuple[int, ...], padding: Mask | None) -> Values:
    if isinstance(values, np.ndarray):
        made = values.reshape(*shape, *values.shape[1:])
        if padding is not None:
            made[padding] = 0
        return made
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    objects = objects.reshape(shape)
    if padding is not None:
        objects[padding] = None
    nested: list[Any] = objects.tolist()
    return nested


@dataclass(frozen=True, slots=True)
class Runs:
    """Moments: every stride-th row of each run. All int64 [R]."""

    first: Rows
    rows: Rows
    episode: Rows


class WindowSource:
    """See windows.py for what it gives.

    dropped_episodes, dropped_rows  what pad="drop" left out: episodes without any moment, rows
                                    that would need padding

    Owns the sources given to it: `close` closes them.
    """

    def __init__(
        self,
        spec: Windows,
        source: Source,
        *,
        streams: Mapping[str, Source] | None = None,
        folder: Path | None = None,
    ) -> None:
        """folder  where the index is kept; None: nowhere. Raises BadInput, NotFound."""
        streams = dict(streams or {})
        check_streams(spec, streams)
        given, spec = spec, named(spec, source)
        self._spec = spec
        self._sources = [source, *streams.values()]
        self._base = _episodes(spec, source, spec.unit == "seconds" or bool(streams), folder)
        self._parts = self._own_parts(source)
        for name, stream in streams.items():
            self._parts += self._stream_parts(name, stream, folder)
        at_now = [*filter(None, (spec.episode, spec.time)), *spec.now_columns]
        for name in at_now:
            reading.column_of(source, name, "the now column")
        self._now = reading.Picked(source, at_now)
        self.columns = [*self._now.columns, *(c for part in self._parts for c in part.columns())]
        _refuse_twins(self.columns)
        identities = {name: each.identity for name, each in streams.items()}
        self.identity = digest_json([FORMAT, source.identity, said(given, spec), identities])
        self._runs = self._find_runs(folder)
        counts = -(-self._runs.rows // spec.stride)
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        self._say_dropped()

    # the protocol

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def gather(self, rows: Rows) -> dict[str, Values]:
        """The windows of these moments: see windows.py."""
        at, episodes = self.moments(rows)
        batch = self._now.gather(at)
        for part in self._parts:
            batch.update(part.gather(at, episodes, self._spec.pad != "edge"))
        return batch

    def moments(self, samples: Rows) -> tuple[Rows, Rows]:
        """For each sample its row in the split and the number of its episode."""
        run = np.searchsorted(self._ends, samples, side="right")
        rows = self._runs.first[run] + (samples - self._starts[run]) * self._spec.stride
        return rows, self._runs.episode[run]

    @property
    def bounded(self) -> bool:
        """Whether it matters what is done: see `ShardSource`."""
        return any(map(reading.bounded, self._sources))

    def ahead(self, rows: Rows) -> None:
        """Rows of all parts at both ends of the windows are wanted soon."""
        open_ = [part for part in self._parts if not part.source.complete]
        if open_:
            at, episodes = self.moments(rows)
            for part in open_:
                part.source.ahead(part.ends.find(at, episodes)[0].reshape(-1))

    def done(self, rows: Rows) -> None:
        """The moments' own rows; neighbours may still want them, and then read them again."""
        self._now.done(self.moments(rows)[0])

    def close(self) -> None:
        for each in self._sources:
            reading.close(each)

    # building

    def _own_parts(self, source: Source) -> list[Part]:
        spec = self._spec
        if spec.unit == "steps":
            pair = offsets_in_rows(spec)
            where: list[ByRow | ByTime] = [ByRow(self._base, each) for each in pair]
        else:
            same = np.arange(len(self._base))
            where = [
                _by_time(spec, self._base, self._base, same, offsets)
                for offsets in offsets_in_time(spec, spec.unit)
            ]
        return _parts(spec, source, where, "")

    def _stream_parts(self, name: str, source: Source, folder: Path | None) -> list[Part]:
        spec = self._spec.streams[name]
        assert isinstance(spec, Stream)
        spec = named_stream(spec, self._spec, source)
        episodes = _episodes(spec, source, True, folder)
        found = match(self._base, episodes, name)
        lost = np.flatnonzero(found < 0)
        if len(lost) and self._spec.pad == "edge":
            missing = self._base.names.take(pa.array(lost))
            raise BadInput(
                f'stream "{name}" has nothing of {len(missing)} of {len(found)} episodes: '
                f"{shown(missing)}",
                'Take pad="zero" to have zeros there, or pad="drop" to leave these episodes out.',
                stream=name,
                episodes=missing.slice(0, 20).to_pylist(),
            )
        where = [
            _by_time(spec, self._base, episodes, found, offsets)
            for offsets in offsets_in_time(spec, self._spec.unit)
        ]
        return _parts(spec, source, where, f"{name}_")

    # moments

    def _find_runs(self, folder: Path | None) -> Runs:
        base = self._base
        every = np.arange(len(base))
        if self._spec.pad != "drop":
            return Runs(base.first[:-1], np.diff(base.first), every)
        offsets = [part.where.offsets for part in self._parts]
        if all(isinstance(part.where, ByRow) for part in self._parts):
            before = max(0, -min(int(each.min()) for each in offsets))
            after = max(0, *(int(each.max()) for each in offsets))
            rows = np.diff(base.first) - before - after
            some = np.flatnonzero(rows > 0)
            return Runs(base.first[:-1][some] + before, rows[some], some)
        table = kept(folder, [FORMAT, self.identity, "runs"], self._unpadded)
        return Runs(*(numbers(table, name) for name in ("first", "rows", "episode")))

    def _unpadded(self) -> pa.Table:
        """Runs of rows whose windows need no padding; every row is looked at, once."""
        n = int(self._base.first[-1])
        whole = np.empty(n, bool)
        for start in range(0, n, _AT_ONCE):
            rows = np.arange(start, min(start + _AT_ONCE, n), dtype=np.int64)
            episodes = self._base.of_rows(rows)
            good = np.ones(len(rows), bool)
            for part in self._parts:
                good &= ~part.where.find(rows, episodes)[1].any(axis=1)
            whole[rows] = good
        begins = np.zeros(n + 1, bool)
        begins[self._base.first] = True
        edge = np.flatnonzero(begins[1:-1] | (whole[1:] != whole[:-1])) + 1
        first = np.concatenate([[0], edge]).astype(np.int64)
        rows = np.diff(np.append(first, n))
        some = whole[first]
        first, rows = first[some], rows[some]
        return pa.table({"first": first, "rows": rows, "episode": self._base.of_rows(first)})

    def _say_dropped(self) -> None:
        n = int(self._base.first[-1])
        self.dropped_rows = n - int(self._runs.rows.sum())
        left = np.zeros(len(self._base), bool)
        left[self._runs.episode] = True
        self.dropped_episodes = int((~left).sum())
        if not len(self):
            raise BadInput(
                f'no window is left: pad="drop" leaves out all {n} rows of {len(left)} episodes, '
                f"the longest of which has {int(np.diff(self._base.first).max())} rows",
                'Take shorter windows, or pad="edge".',
                episodes=len(left),
                rows=n,
            )
        if self.dropped_episodes:
            names = self._base.names.filter(pa.array(~left))
            _log.warning(
                f'pad="drop" leaves out {self.dropped_episodes} of {len(left)} episodes, which '
                f"are shorter than a window: {shown(names)}",
                extra=facts(episodes=self.dropped_episodes, rows=self.dropped_rows),
            )


def check_streams(spec: Windows, given: Mapping[str, Source]) -> None:
    """Raise BadInput unless every stream of the spec, and nothing else, has a source."""
    if given.keys() != spec.streams.keys():
        raise BadInput(
            f"the windows name streams {sorted(spec.streams) or 'none'}, given are "
            f"{sorted(given) or 'none'}",
            "Give a source for each stream.",
        )


def _episodes(spec: Windows | Stream, source: Source, times: bool, folder: Path | None) -> Episodes:
    """Of a spec that has names: see naming.py."""
    unit = spec.time_unit or "s"
    return episodes_of(
        source, spec.episode or "", spec.time or None, unit, times=times, folder=folder
    )


def _by_time(
    spec: Windows | Stream, base: Episodes, stream: Episodes, numbers: Rows, offsets: Rows
) -> ByTime:
    slack = min(_SLACK, int(period(spec) / 20 * 1e9)) if spec.rate else _SLACK
    tolerance = None if spec.tolerance is None else round(spec.tolerance * 1e9)
    return ByTime(base, stream, numbers, offsets, slack, spec.align == "nearest", tolerance)


def _parts(
    spec: Windows | Stream,
    source: Source,
    where: Sequence[ByRow | ByTime],
    prefix: str,
) -> list[Part]:
    """History and horizon, as far as they hold anything."""
    own = {spec.episode, spec.time}
    free = [each.name for each in reading.columns_of(source) if each.fixed and each.name not in own]
    chosen = [
        list(free if given is None else given)
        for given in (spec.history_columns, spec.horizon_columns)
    ]
    both = set(chosen[0]) & set(chosen[1]) if all(len(w.offsets) for w in where) else set()
    parts = []
    for names, place, end in zip(chosen, where, ("", "_ahead"), strict=True):
        what = "the horizon column" if end else "the history column"
        for name in names:
            reading.column_of(source, name, what)
        if not names or not len(place.offsets):
            continue
        named = {name: prefix + name + (end if name in both else "") for name in names}
        parts.append(Part(reading.Picked(source, names), place, named, f"{prefix}pad_mask{end}"))
    return parts


def _refuse_twins(columns: Sequence[Column]) -> None:
    names = [each.name for each in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(
            f"windows would have two columns {', '.join(twice)}",
            "Name other columns, or rename one when the dataset is prepared.",
            columns=twice,
        )
