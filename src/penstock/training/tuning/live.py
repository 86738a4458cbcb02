"""One trial under way, as the script of its study follows it."""

from __future__ import annotations

import time
from bisect import bisect_right
from contextlib import suppress
from dataclasses import replace
from typing import Literal

from penstock.base.errors import Conflict
from penstock.jobs import control
from penstock.jobs.stores import Stores
from penstock.records import Run
from penstock.records.runs import ENDED
from penstock.signals import Curve
from penstock.training.follow import interrupted, is_orphan
from penstock.training.tuning import reading
from penstock.training.tuning.history import Trial
from penstock.training.tuning.setup import Setup

_REVIVALS = 3  # in a row without a further step
_CURVE = 0.5  # seconds between two looks at what was logged
_LOOK = 1.0  # seconds between two looks for life, where it is not our child


class Live:
    """What became of a trial's run: `poll` says it, `stop` and `kill` end it.

    child   its controller; None where another process started it
    cursor  the newest event when this began
    """

    def __init__(
        self,
        stores: Stores,
        setup: Setup,
        run: Run,
        child: control.Started | None,
        cursor: int,
    ) -> None:
        self.run = run
        self.child = child
        self._stores = stores
        self._setup = setup
        self._cursor = cursor
        self._curve = Curve(
            stores.layout.signals(run.id), setup.metric or "", int(run.spec["world_size"])
        )
        told = self._curve.look()
        self._judged = told[-1][0] if told else -1
        self._revivals, self._revived_at = 0, -1
        self._next_look = self._next_curve = 0.0
        self.trial = self._read("running")

    @property
    def number(self) -> int:
        return self.trial.number

    @property
    def names(self) -> set[str]:
        """Every scalar that was told."""
        return self._curve.names

    def poll(self) -> Literal["running", "ended", "orphan"]:
        """Look at the row and at what was logged; `trial` is as both tell it.

        ended   its controller is gone, and its row says how
        orphan  its controller and agent are gone, and its row does not know it
        """
        with self._stores.meta.read() as db:
            self.run = db.get_run(self.run.id)
        if self.run.state in ENDED:
            if self.child is not None:
                self.child.wait()
            self.trial = self._read(self.run.state)
            return "ended"
        now = time.monotonic()
        if self._setup.pruner != "none" and now >= self._next_curve:
            self._next_curve = now + _CURVE
            self.trial = self._read("running")
        else:
            self.trial = replace(self.trial, step=self.run.step)
        return "orphan" if self._is_orphan() else "running"

    def unjudged(self) -> list[list[tuple[int, float]]]:
        """The curve up to each point that was told since the last call."""
        curve = self.trial.curve
        first = bisect_right(curve, self._judged, key=lambda point: point[0])
        if first < len(curve):
            self._judged = curve[-1][0]
        return [curve[: at + 1] for at in range(first, len(curve))]

    def was_stopped(self) -> bool:
        """Whether somebody asked for its stop since it is followed."""
        with self._stores.meta.read() as db:
            events = db.events(after=self._cursor, subject=f"run/{self.run.id}")
        return any(each.kind.startswith("run.stop") and "by" in each.body for each in events)

    def revive(self, child: control.Started, run: Run) -> None:
        """Follow another controller of the same run. Raises RunFailed, DiskFull after too many."""
        if run.step > self._revived_at:
            self._revivals, self._revived_at = 0, run.step
        self._revivals += 1
        code = self.child.returncode if self.child is not None else None
        self.run, self.child = run, child
        if self._revivals > _REVIVALS:
            raise interrupted(self._stores, run, code)

    def stop(self, why: str | None = None) -> None:
        """Ask for a clean end."""
        with suppress(Conflict):  # it ended at this moment
            control.stop(self._stores, self.run.id, why)

    def kill(self) -> None:
        control.kill(self._stores, self.run.id)

    def _is_orphan(self) -> bool:
        if self.child is None:
            now = time.monotonic()
            if now < self._next_look:
                return False
            self._next_look = now + _LOOK
        return is_orphan(self._stores, self.run, self.child)

    def _read(self, state: str) -> Trial:
        curve = self._curve.look(final=self.run.state in ENDED)
        return reading.trial_with(self._setup, self.run, state, curve)
