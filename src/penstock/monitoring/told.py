"""What the ranks of a run told about their time, read as it grows: each look reads only what came
since the last one. The names are those of `penstock.training.accounting`."""

from __future__ import annotations

import math
from array import array
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penstock.signals import segment
from penstock.signals.reader import read_segment
from penstock.signals.segment import Cursor, Record

_SPANS = {
    "penstock/evaluation": "evaluation",
    "penstock/checkpoint": "checkpoint",
    "penstock/publishing": "publishing",
    "penstock/comparing": "comparing",
}
_PARTS = {f"penstock/{part}_seconds": part for part in ("data", "checkpoint", "collective")}
_AMOUNTS = ("samples", "tokens", "flops")
_LOOP = "steps"
_KEPT = 240  # points of a scalar
_BUSY = 3600  # samples of how busy a GPU is, one a second


@dataclass(slots=True)
class Told:
    """Of one rank in one attempt; times are seconds since 1970.

    began    when it could tell for the first time
    steps    int64 [n], completed optimiser steps, as they were told
    ends     float64 [n], when each was complete; it took seconds[i], of which data[i] were spent
             waiting for its batch
    checkpoint, collective
             float64 [n], what each stood in a checkpoint, and in collective operations (NaN: not
             told, as by a rank alone or on a GPU)
    spans    (class, start, end) of all that is not a step
    inside   class of a span that began and has not ended; "steps" within the loop; "" outside
    since    when that began or, if it is "", when the last one ended
    loop     when the first loop began; None before
    looping  it is in a loop
    samples, tokens, flops
             float64 [n], of each step on this rank; NaN where it was not told
    device, dtype
             of its products, as CUDA names it; "" where FLOPs are of no interest
    busy     (seconds since 1970, 0..1), the newest of how busy its GPU was; none where nobody asks
    gpu_bytes  of its GPU's memory that were in use of late; None likewise
    series   scalar -> its newest (step, value), Penstock's own left out
    """

    began: float
    steps: Any = field(default_factory=lambda: array("q"))
    ends: Any = field(default_factory=lambda: array("d"))
    seconds: Any = field(default_factory=lambda: array("d"))
    data: Any = field(default_factory=lambda: array("d"))
    checkpoint: Any = field(default_factory=lambda: array("d"))
    collective: Any = field(default_factory=lambda: array("d"))
    spans: list[tuple[str, float, float]] = field(default_factory=list)
    inside: str = ""
    since: float = 0.0
    loop: float | None = None
    looping: bool = False
    samples: Any = field(default_factory=lambda: array("d"))
    tokens: Any = field(default_factory=lambda: array("d"))
    flops: Any = field(default_factory=lambda: array("d"))
    device: str = ""
    dtype: str = "float32"
    amounts: dict[str, float] = field(default_factory=dict)
    busy: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_BUSY))
    gpu_bytes: float | None = None
    series: dict[str, deque[tuple[int, float]]] = field(default_factory=dict)

    @property
    def last(self) -> float:
        """When it told the last thing."""
        ended = self.ends[-1] if len(self.ends) else self.began
        return float(max(self.began, self.since, ended))

    def columns(self) -> tuple[Any, Any, Any, Any]:
        """steps, ends, seconds, data as arrays; copies, because what grows cannot be shared."""
        kinds = (np.int64, np.float64, np.float64, np.float64)
        held = (self.steps, self.ends, self.seconds, self.data)
        return tuple(np.array(each, dtype=kind) for each, kind in zip(held, kinds, strict=True))  # type: ignore[return-value]

    def hear(self, record: Record) -> None:
        """One record more, in the order in which they were told."""
        if record.kind == segment.SCALAR:
            self._scalar(record)
        elif record.kind == segment.SPAN and record.name in _SPANS:
            self.spans.append((_SPANS[record.name], record.at, record.value))
            self.inside, self.since = (_LOOP if self.looping else ""), record.value
        elif record.name == "penstock/began":
            if record.text == _LOOP:
                self.looping, self.loop = True, self.loop or record.at
            self.inside, self.since = _SPANS.get(record.text, record.text), record.at
        elif record.name == "penstock/device":
            self.device, self.dtype = record.text.rsplit("|", 1)
        elif record.name == "penstock/over":
            self.looping, self.inside, self.since = False, "", record.at

    def _scalar(self, record: Record) -> None:
        if record.name == "penstock/step_seconds":
            self.steps.append(record.step)
            self.ends.append(record.at)
            self.seconds.append(record.value)
            self.data.append(0.0)
            self.checkpoint.append(0.0)
            self.collective.append(math.nan)
            for name in _AMOUNTS:
                getattr(self, name).append(self.amounts.get(name, math.nan))
        elif record.name in _PARTS:
            part = getattr(self, _PARTS[record.name])
            if len(part):
                part[-1] = record.value  # of the step that was told just before
        elif record.name == "penstock/gpu_utilization":
            self.busy.append((record.at, record.value))
        elif record.name == "penstock/gpu_memory_bytes":
            self.gpu_bytes = record.value
        elif record.name.startswith("penstock/"):
            if (name := record.name.removeprefix("penstock/")) in _AMOUNTS:
                self.amounts[name] = record.value  # told when it changes, before its step
        else:
            kept = self.series.setdefault(record.name, deque(maxlen=_KEPT))
            kept.append((record.step, record.value))


class Tracks:
    """Of all ranks and attempts of one run.

    folder  of its segments; may not exist yet
    told    (generation, rank) -> what it told
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cursors: dict[Path, Cursor] = {}
        self._over: set[Path] = set()
        self.told: dict[tuple[int, int], Told] = {}

    def look(self) -> dict[tuple[int, int], Told]:
        """Read what came since the last look. Raises Damaged for a file that is no segment."""
        for path in segment.list_segments(self._folder):
            if path in self._over:
                continue
            piece = read_segment(path, self._cursors.setdefault(path, Cursor()))
            if piece is None:
                continue
            if piece.head.closed:
                self._over.add(path)
            key = (piece.head.generation, piece.head.rank)
            told = self.told.setdefault(key, Told(piece.head.made_at))
            for record in piece.records:
                told.hear(record)
        return self.told
