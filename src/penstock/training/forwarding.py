"""A run's scalars on their way out of the run folder: to TensorBoard files, MLflow and W&B while it
goes on, into the blob store at its end."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from penstock.base import log, process
from penstock.base.errors import PenstockError
from penstock.jobs.stores import Stores
from penstock.signals import seal
from penstock.training import forwarder

_POLL = 1.0  # seconds
_LAST = 30.0  # seconds for a tracker to take the rest, once the run has ended
_log = log.logger("controller")


class Forwarding:
    """To TensorBoard, MLflow and W&B, where the settings name them; otherwise nothing.

    Owns a daemon thread for files and a process for each tracker, so that the controller's loop
    waits for neither; `close` ends both after they have written what is left. What goes wrong is
    said once and never touches the run: its segments have everything, and the next forwarder
    continues from what the other side holds.
    """

    def __init__(self, stores: Stores, run_id: str, name: str, config: Any = None) -> None:
        self._segments = stores.layout.signals(run_id)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        if (folder := stores.settings.tensorboard) is not None:
            self._thread = threading.Thread(
                target=self._forward,
                args=(folder / f"{name}-{run_id}",),
                name="tensorboard",
                daemon=True,
            )
            self._thread.start()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        for tracker in forwarder.NAMES:
            if (target := getattr(stores.settings, tracker)) is None:
                continue
            if child := _start(tracker, self._segments, target, run_id, name, config):
                self._children[tracker] = child

    def close(self, finished: bool = False) -> None:
        """Nothing more will come: write all there is.

        finished  the run did; otherwise it was stopped, failed, or goes on another time
        """
        self._over.set()
        for child in self._children.values():
            _tell(child, b"f" if finished else b"s")
        until = time.monotonic() + _LAST
        for tracker, child in self._children.items():
            _end(child, forwarder.NAMES[tracker], until)
        if self._thread is not None:
            self._thread.join()

    def _forward(self, target: Path) -> None:
        from penstock.signals.tensorboard import Forwarder

        try:
            with Forwarder(self._segments, target) as forwarder:
                while not self._over.wait(_POLL):
                    forwarder.poll()
                forwarder.poll(final=True)
        except PenstockError as error:
            _log.warning("no TensorBoard files: %s", error, extra=log.facts(code=error.code))


def _start(
    tracker: str, segments: Path, target: str, run_id: str, name: str, config: Any
) -> subprocess.Popen[bytes] | None:
    me = os.getpid()
    try:
        place = forwarder.config_beside(segments)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(config))
        return subprocess.Popen(
            forwarder.command(tracker, segments, target, run_id, name),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: process.die_with_parent(me),
        )
    except OSError as error:
        name = forwarder.NAMES[tracker]
        _log.warning("nothing to %s: its process cannot be started: %s", name, error)
        return None


def _tell(child: subprocess.Popen[bytes], word: bytes) -> None:
    assert child.stdin is not None
    with suppress(OSError):  # it ended already, and said why
        child.stdin.write(word)
        child.stdin.close()


def _end(child: subprocess.Popen[bytes], name: str, until: float) -> None:
    """Let it write the rest, for a while."""
    try:
        child.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        _log.warning("%s did not take the last scalars within %.0f s", name, _LAST)
        child.kill()
        child.wait()


def keep(stores: Stores, run_id: str) -> list[str]:
    """Store the segments of a run whose ranks are gone. Returns the blobs' digests.

    A store that has no room is no reason to fail a run: the segments stay where they are.
    """
    try:
        return seal(stores.layout.signals(run_id), stores.blobs)
    except PenstockError as error:
        _log.warning("signals were not stored: %s", error, extra=log.facts(code=error.code))
        return []
