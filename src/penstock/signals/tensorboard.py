"""Scalars to TensorBoard event files: one way, as the run goes.

What is guaranteed: every (name, step) is written at most once to a folder, over any number of
restarts of the forwarder and of the run; with `poll(final=True)` after the run's end exactly
once; steps of a name rise. The value is the reduced one at the time when the step was settled
(`settling`). Event files cannot be changed: where a crash made
the run compute a settled step again with another result, TensorBoard keeps the first one, while
`reduce_scalars` has the newer. Values are float32, as event files are.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from penstock.base.errors import MissingExtra, Unavailable
from penstock.base.ids import new_id
from penstock.signals.settling import Settled, Settling


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
        self._settling = Settling(self._folder, _read_back(self._target))
        self._stream: Any = None

    def poll(self, final: bool = False) -> int:
        """Write what has settled since; returns how many values. `final`: write all there is."""
        due = self._settling.take(final)
        try:
            for each in due:
                self._write(each)
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

    def _write(self, settled: Settled) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        value = summary_pb2.Summary.Value(tag=settled.name, simple_value=settled.value)
        self._append(
            event_pb2.Event(
                wall_time=settled.at,
                step=settled.step,
                summary=summary_pb2.Summary(value=[value]),
            )
        )

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
