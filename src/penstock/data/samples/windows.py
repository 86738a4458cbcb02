"""What a window is: the rows around a moment of an episode.

A sample is a moment: a row of the split, keyed by (episode, time). Around it lie the history
(rows up to and including now) and the horizon (rows from `lead` on: now itself where 0, as for
the actions that answer an observation; the next row where 1, as for a forecast). Other datasets
that ran beside it, at their own rates, are streams: for each wanted time the row of the same
episode that was newest then, or the nearest.

In a batch (b samples, T steps):

    X                 [b, T, *shape]  history of column X; a list of b lists of T where X is text,
                                      bytes, a time or a list
    X_ahead           the horizon's, where X is in both; X where it is in the horizon alone
    pad_mask          bool [b, T]     True where the history is padding
    pad_mask_ahead    bool [b, T]     True where the horizon is
    STREAM_X, STREAM_X_ahead, STREAM_pad_mask, STREAM_pad_mask_ahead   likewise
    episode, time     of the moment, under the names of their columns; and `now_columns`
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from penstock.base.errors import BadInput
from penstock.data.order import Rows

Unit = Literal["steps", "seconds"]
Pad = Literal["edge", "zero", "drop"]
Align = Literal["before", "nearest"]
TimeUnit = Literal["s", "ms", "us", "ns"]

NANOSECONDS: dict[str, int] = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_WHOLE = 1e-6  # how far a number of steps may be from a whole one


@dataclass(frozen=True, slots=True)
class Stream:
    """Another dataset's split, aligned by timestamp.

    source           reference, such as "robot-camera:train"; without a split: that of the windows.
                     Its episodes have the same names
    history          its steps up to now, `rate` a second; in seconds where the windows are
    horizon, lead    its steps from `lead` on
    rate             wanted rows a second (Hz), whatever it recorded; needed for more than one
    history_columns  default: all numbers and tensors of the stream
    horizon_columns  default: the same, where there is a horizon
    align            "before": the newest row not later than the wanted time; or "nearest"
    tolerance        seconds between the wanted time and the row's, beyond which it is padding;
                     None: any row of the episode will do
    episode, time    its columns, where they have other names than those of the windows and do
                     not tell it by their types
    """

    source: str
    history: float = 1
    horizon: float = 0
    lead: float = 0
    rate: float | None = None
    history_columns: Sequence[str] | None = None
    horizon_columns: Sequence[str] | None = None
    align: Align = "before"
    tolerance: float | None = None
    episode: str | None = None
    time: str | None = None
    time_unit: TimeUnit | None = None

    def __post_init__(self) -> None:
        _tuples(self, "history_columns", "horizon_columns")
        _one_of(self.align, Align, "align")
        _check_lengths(self)
        if self.rate is None and (self.history > 1 or self.horizon > 0):
            raise BadInput(
                f'stream "{self.source}" has several steps, but no rate',
                "Say how many a second: Stream(…, rate=10).",
            )


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows over episodes; see the top of the file.

    history, horizon, lead  in steps (rows) or seconds, as `unit` says
    rate             wanted rows a second (Hz); needed for seconds, which take for each wanted
                     time the newest row not later
    episode, time    columns; None: those whose types are Episode() and Timestamp(), else those
                     of these names. An episode's rows lie together, in order of time. Without a
                     time ("", or none is there, for steps only) their order is believed
    time_unit        of a time that is a number; times, and a Timestamp(unit=…) that is found by
                     its type, know theirs
    history_columns  default: all numbers and tensors, but episode and time
    horizon_columns  default: the same, where there is a horizon
    now_columns      given at the moment only: [b, *shape], or a list of b
    streams          name -> Stream, or a reference: its newest row
    align, tolerance  for seconds, as of a Stream
    pad              what is outside the episode (or tolerance): "edge" repeats the nearest row,
                     "zero" gives zeros (None in lists), "drop" leaves out every moment that would
                     need padding
    stride           every n-th row of an episode is a moment
    """

    history: float = 1
    horizon: float = 0
    unit: Unit = "steps"
    rate: float | None = None
    lead: float = 0
    episode: str | None = None
    time: str | None = None
    time_unit: TimeUnit = "s"
    history_columns: Sequence[str] | None = None
    horizon_columns: Sequence[str] | None = None
    now_columns: Sequence[str] = ()
    streams: Mapping[str, Stream | str] = field(default_factory=dict)
    align: Align = "before"
    tolerance: float | None = None
    pad: Pad = "edge"
    stride: int = 1

    def __post_init__(self) -> None:
        _tuples(self, "history_columns", "horizon_columns", "now_columns")
        streams = {
            name: each if isinstance(each, Stream) else Stream(each)
            for name, each in self.streams.items()
        }
        object.__setattr__(self, "streams", streams)
        for value, kind, name in (
            (self.unit, Unit, "unit"),
            (self.pad, Pad, "pad"),
            (self.align, Align, "align"),
            (self.time_unit, TimeUnit, "time_unit"),
        ):
            _one_of(value, kind, name)
        if not isinstance(self.stride, int) or self.stride < 1:
            raise BadInput(
                f"a stride of {self.stride} leads nowhere", "Give a whole number from 1."
            )
        _check_lengths(self)
        self._check_unit()

    def _check_unit(self) -> None:
        if self.unit == "seconds" and self.rate is None:
            raise BadInput(
                "windows in seconds need a rate", 'Give one, in Hz: unit="seconds", rate=50.'
            )
        if self.unit == "steps" and self.rate is not None:
            raise BadInput(
                "a rate says nothing about windows in steps",
                'Leave it out, or count in seconds: unit="seconds".',
            )
        if self.unit == "steps" and self.tolerance is not None:
            raise BadInput(
                "a tolerance says nothing about windows in steps",
                'Leave it out, count in seconds (unit="seconds"), or give it to a stream.',
            )
        if self.time == "" and (self.unit == "seconds" or self.streams):
            raise BadInput(
                "seconds and streams need a column of time", 'Name it: time="timestamp".'
            )
        for each in self.streams.values():
            offsets_in_time(each, self.unit)  # type: ignore[arg-type]
        if self.unit == "steps":
            offsets_in_rows(self)
        else:
            offsets_in_time(self, self.unit)


def offsets_in_rows(spec: Windows) -> tuple[Rows, Rows]:
    """Rows of history and horizon, relative to the moment: int64 [T] each. BadInput."""
    history, horizon, lead = (
        _whole(value, name)
        for value, name in (
            (spec.history, "history"),
            (spec.horizon, "horizon"),
            (spec.lead, "lead"),
        )
    )
    return np.arange(1 - history, 1), np.arange(lead, lead + horizon)


def offsets_in_time(spec: Windows | Stream, unit: Unit) -> tuple[Rows, Rows]:
    """Wanted times of history and horizon, relative to the moment: nanoseconds, int64 [T] each.

    Raises BadInput when seconds times rate are no whole number of steps.
    """
    rate = 1.0 if spec.rate is None else spec.rate
    scale = rate if unit == "seconds" and spec.rate is not None else 1.0
    history = max(_whole(spec.history * scale, "history", scale), int(spec.history > 0))
    horizon = _whole(spec.horizon * scale, "horizon", scale)
    lead = spec.lead if unit == "seconds" else spec.lead / rate
    return _nanoseconds(np.arange(1 - history, 1) / rate), _nanoseconds(
        lead + np.arange(horizon) / rate
    )


def period(spec: Windows | Stream) -> float:
    """Seconds between two wanted rows; infinite where only one is wanted."""
    return math.inf if spec.rate is None else 1 / spec.rate


def _nanoseconds(seconds: Any) -> Rows:
    found: Rows = np.rint(seconds * 1e9).astype(np.int64)
    return found


def _whole(value: float, name: str, rate: float = 1.0) -> int:
    found = round(value)
    if abs(value - found) > _WHOLE * max(1.0, abs(value)):
        what = f"{value / rate:g} s at {rate:g} Hz is {value:g}" if rate != 1.0 else f"{value:g}"
        raise BadInput(
            f"a {name} of {what} steps is no whole number of steps",
            "Take a multiple of one step.",
            **{name: value},
        )
    return found


def _check_lengths(spec: Windows | Stream) -> None:
    for name in ("history", "horizon", "lead", "tolerance"):
        value = getattr(spec, name)
        if value is not None and (not math.isfinite(value) or (value < 0 and name != "lead")):
            raise BadInput(f"a {name} of {value} is no length", "Give 0 or more.")
    if spec.history == 0 and spec.horizon == 0:
        raise BadInput("a window without history and horizon is empty", "Give history=1 or more.")
    if spec.rate is not None and not (math.isfinite(spec.rate) and spec.rate > 0):
        raise BadInput(f"a rate of {spec.rate} is none", "Give rows a second, above 0.")


def _one_of(value: Any, kind: Any, name: str) -> None:
    known = kind.__args__
    if value not in known:
        shown = " or ".join(f'"{each}"' for each in known)
        raise BadInput(f"{name} is {value!r}", f"It is {shown}.")


def _tuples(spec: Any, *names: str) -> None:
    """Lists become tuples, so that equal specs are equal; a lone name is one name."""
    for name in names:
        value = getattr(spec, name)
        if value is not None:
            object.__setattr__(spec, name, (value,) if isinstance(value, str) else tuple(value))
