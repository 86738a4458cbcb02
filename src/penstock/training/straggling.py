"""The controller's ear for a rank that keeps the others waiting: reads what ranks tell, beside the
controller's loop, and has something to say when it lasts."""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from penstock.base import log
from penstock.base.errors import PenstockError
from penstock.jobs.stragglers import Step, stragglers
from penstock.signals import segment
from penstock.signals.reader import read_segment
from penstock.signals.segment import Cursor

WINDOW = 20  # steps that are judged at once
LASTS = 3  # windows in a row
_POLL = 1.0  # seconds
_log = log.logger("controller")
_NAMES = {
    "penstock/data_seconds": "data",
    "penstock/checkpoint_seconds": "checkpoint",
    "penstock/collective_seconds": "collective",
}


class Lately:
    """Steps of the ranks of one attempt, read as they come and given in whole windows."""

    def __init__(self, folder: Path, generation: int, ranks: int) -> None:
        self._folder, self._generation, self._ranks = folder, generation, ranks
        self._cursors: dict[Path, Cursor] = {}
        self._steps: dict[int, dict[int, dict[str, float]]] = defaultdict(dict)

    def windows(self) -> list[dict[int, list[Step]]]:
        """Windows of steps that all ranks have told since, the oldest first."""
        self._read()
        found: list[dict[int, list[Step]]] = []
        while True:
            shared = [step for step in self._steps[0] if self._is_told(step)]
            if len(shared) < WINDOW:
                return found
            window = sorted(shared)[:WINDOW]
            ranks = range(self._ranks)
            found.append({r: [Step(**self._steps[r][step]) for step in window] for r in ranks})
            for rank in ranks:
                kept = self._steps[rank].items()
                self._steps[rank] = {step: told for step, told in kept if step > window[-1]}

    def _is_told(self, step: int) -> bool:
        """By all ranks and to the end: waiting for data is told after the seconds."""
        return all("data" in self._steps[rank].get(step, {}) for rank in range(self._ranks))

    def _read(self) -> None:
        for path in segment.list_segments(self._folder):
            if not path.name.startswith(f"{self._generation:06d}-"):
                continue
            piece = read_segment(path, self._cursors.setdefault(path, Cursor()))
            for record in piece.records if piece is not None else ():
                steps = self._steps[segment.rank_of(path)]
                if record.name == "penstock/step_seconds":
                    steps[record.step] = {"seconds": record.value}
                elif record.name in _NAMES and record.step in steps:
                    steps[record.step][_NAMES[record.name]] = record.value


class Straggling:
    """Of one run. Owns one daemon thread while an attempt of several ranks runs; `close` ends it.

    `news` gives each lasting straggler of an attempt once, and again when it had been well.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._news: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, attempt: int, generation: int, ranks: int, adopted: bool = False) -> None:
        """Another attempt: nothing of the one before counts. adopted: it goes on already, and
        whoever listened before has said what there was to say."""
        self.close()
        if ranks < 2:
            return
        self._over = threading.Event()
        lately = Lately(self._folder, generation, ranks)
        if adopted:
            lately.windows()
        self._thread = threading.Thread(
            target=self._listen, args=(lately, attempt, self._over), name="straggling", daemon=True
        )
        self._thread.start()

    def news(self) -> list[dict[str, Any]]:
        found = []
        while not self._news.empty():
            found.append(self._news.get())
        return found

    def close(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _listen(self, lately: Lately, attempt: int, over: threading.Event) -> None:
        lasting: dict[int, int] = {}
        try:
            while not over.wait(_POLL):
                for window in lately.windows():
                    slow = {each.rank: each for each in stragglers(window)}
                    lasting = {rank: lasting.get(rank, 0) + 1 for rank in slow}
                    for rank, each in slow.items():
                        if lasting[rank] == LASTS:
                            self._news.put({"attempt": attempt, **asdict(each)})
        except (PenstockError, OSError) as error:
            _log.warning("nobody looks for slow ranks: %s", error)
