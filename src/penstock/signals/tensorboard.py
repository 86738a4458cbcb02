"""Scalars to TensorBoard event files: one way, as the run goes.

What is guaranteed: every (name, step) is written at most once to a folder, over any number of
restarts of the forwarder and of the run; with `poll(final=True)` after the run's end exactly
once; steps of a name rise. The value is the reduced one (`reduce_scalars`) at the time when the
step was settled, which is when

- every rank of the newest generation that tells this name has told it for a later step, and
- those that never told it are 100 steps past it,

or when `final` says that nothing more will come. Event files cannot be changed: where a crash made
the run compute a settled step again with another result, TensorBoard keeps the first one, while
`reduce_scalars` has the newer. Values are float32, as event files are.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any

from penstock.base.errors import MissingExtra, Unavailable
from penstock.base.ids import new_id
from penstock.signals import segment
from penstock.signals.reader import read_segment
from penstock.signals.segment import Cursor

_PAST = 100  # steps after which a rank that never told a name counts as not telling it
_Told = dict[tuple[int, int], tuple[float, float]]  # (generation, rank) -> value, at


class Forwarder:
    """Forwards one run. One forwarder per target at a time; it starts no thread.

    folder  of the run's segments; may not exist yet
    target  folder of the event files, read back at the start to see what is there

    Raises MissingExtra (no `tensorboard` package), Unavailable (the target cannot be written).
    """

    def __init__(self, folder: Path, target: Path) -> None:
        _import()
        self._folder, self._target = folder, target
        self._begin()

    def _begin(self) -> None:
        """Start from what the target holds. Segments are read again, which writes nothing twice."""
        self._written = _read_back(self._target)  # name -> highest step
        self._cursors: dict[str, Cursor] = defaultdict(Cursor)
        self._done: set[str] = set()
        self._generation = -1
        self._pending: dict[str, dict[int, _Told]] = defaultdict(lambda: defaultdict(dict))
        self._last_of_name: dict[tuple[int, str], int] = {}  # (rank, name), newest generation
        self._last: dict[int, int] = {}  # rank -> step, newest generation
        self._stream: Any = None

    def poll(self, final: bool = False) -> int:
        """Write what has settled since; returns how many values. `final`: write all there is."""
        self._read_new()
        due = sorted(
            (step, name)
            for name, steps in self._pending.items()
            for step in steps
            if final or self._is_settled(name, step)
        )
        try:
            for step, name in due:
                self._write(name, step, self._pending[name].pop(step))
            if due:
                self._stream.flush()
        except OSError as error:
            self.close()
            self._begin()  # what was written in part is looked up when the next poll goes on
            raise Unavailable(
                f"TensorBoard files in {self._target} cannot be written: {error.strerror}",
                "Free space or point the setting `tensorboard` elsewhere; the run itself has all.",
                path=str(self._target),
            ) from None
        return len(due)

    def close(self) -> None:
        """Close the event file. What has not settled is left to the next forwarder."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(OSError):  # `poll` flushed, or has already failed
                stream.close()

    def __enter__(self) -> Forwarder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read_new(self) -> None:
        for path in segment.list_segments(self._folder):
            if path.name in self._done:
                continue
            piece = read_segment(path, self._cursors[path.name])
            if piece is None:
                continue
            if piece.head.closed:
                self._done.add(path.name)
            generation, rank = piece.head.generation, piece.head.rank
            if generation > self._generation:
                self._generation = generation
                self._last, self._last_of_name = {}, {}
            if generation == self._generation:
                self._last.setdefault(rank, -1)
            for record in piece.records:
                if record.kind != segment.SCALAR:
                    continue
                if generation == self._generation:
                    self._last[rank] = max(self._last[rank], record.step)
                    self._last_of_name[rank, record.name] = record.step
                if record.step > self._written.get(record.name, -1):
                    told = self._pending[record.name][record.step]
                    told[generation, rank] = (record.value, record.at)

    def _is_settled(self, name: str, step: int) -> bool:
        for rank, last in self._last.items():
            told = self._last_of_name.get((rank, name))
            if (told is None and last <= step + _PAST) or (told is not None and told <= step):
                return False
        return bool(self._last)

    def _write(self, name: str, step: int, told: _Told) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        newest = max(generation for generation, _ in told)
        kept = [told[key] for key in sorted(told) if key[0] == newest]
        value = sum(one for one, _ in kept) / len(kept)
        self._append(
            event_pb2.Event(
                wall_time=kept[-1][1],
                step=step,
                summary=summary_pb2.Summary(
                    value=[summary_pb2.Summary.Value(tag=name, simple_value=value)]
                ),
            )
        )
        self._written[name] = max(step, self._written.get(name, -1))

    def _append(self, event: Any) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self._stream is None:
            self._target.mkdir(parents=True, exist_ok=True)
            # TensorBoard reads the files of a folder in the order of their names.
            name = f"events.out.tfevents.{int(time.time()):010d}.{new_id()}.{socket.gethostname()}"
            self._stream = RecordWriter((self._target / f"{name}.{os.getpid()}").open("xb"))
            head = event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2")
            self._stream.write(head.SerializeToString())
        self._stream.write(event.SerializeToString())


def _import() -> None:
    try:
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError:
        raise MissingExtra(
            "forwarding to TensorBoard needs the package tensorboard",
            'Install it: pip install "penstock[tensorboard]".',
            extra="tensorboard",
        ) from None


def _read_back(target: Path) -> dict[str, int]:
    """The highest step of every name in the event files that are there."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    highest: dict[str, int] = {}
    for path in sorted(target.glob("events.out.tfevents.*")) if target.is_dir() else []:
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                highest[value.tag] = max(event.step, highest.get(value.tag, -1))
    return highest
