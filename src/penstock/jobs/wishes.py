"""What others want of a run: that it stops, ends at once, gives up its place, has another size."""

from __future__ import annotations

import threading
from typing import Any

from penstock.base import process
from penstock.jobs.decide import GRACE, Ended
from penstock.records import Run


class Wishes:
    """One controller's. `stop`, `preempt` and `kill` come from any thread or signal handler."""

    def __init__(self) -> None:
        self.resize: str | None = None  # why a gang of another size should take over
        self._stop: str | None = None
        self._preempted = False
        self._kill = threading.Event()
        self._client: process.Identity | None = None

    def stop(self, why: str) -> None:
        self._stop = self._stop or why

    def preempt(self, shape: str) -> None:
        """Where the run is to stop anyway, that holds."""
        if self._stop is None:
            self._preempted = shape == "gang"
            self._stop = "preempted"

    def kill(self) -> None:
        self._kill.set()

    def listen_for_client(self, run: Run) -> None:
        """An attached run stops when its script is gone."""
        if (client := run.spec.get("client")) and not run.detached:
            self._client = process.Identity.parse(client)

    def look(self, run: Run) -> None:
        """At the script, and at what stands in the run's row."""
        if self._client is not None and self._client.is_dead():
            self.stop("the script is gone")
        if run.state == "stopping":
            self.stop(run.spec.get("stopping") or "stopped on request")

    def is_over(self) -> bool:
        return self._stop is not None or self._kill.is_set()

    def ended(self) -> Ended:
        """How a run ends that was not even begun."""
        return Ended("preempted" if self._preempted else "stopped", {"why": self._stop or "killed"})

    def facts(self, grace_seconds: float) -> dict[str, Any]:
        """Those fields of `decide.Poll` that tell what others want."""
        return {
            "stop": self._stop,
            "grace": grace_seconds if self._preempted else GRACE,
            "preempted": self._preempted,
            "kill": self._kill.is_set(),
            "resize": self.resize,
        }
