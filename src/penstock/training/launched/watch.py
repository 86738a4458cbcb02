"""A launched rank's part in the watch for hangs.

The ranks of a machine share a page of words, as ranks of our own do; each says in a file beside it
who it is. The machine's first rank starts the process that looks at them (`watcher`): no thread of
a rank can, because a rank that hangs may hold Python's lock, or be stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from penstock.jobs import orders, stacks
from penstock.jobs.budgets import LIMITS, Budget
from penstock.jobs.decide import Starting
from penstock.jobs.pulse import Pulse
from penstock.jobs.stores import Stores
from penstock.records import Attempt
from penstock.training.launched.page import announce, open_words
from penstock.training.launched.seat import Seat

_END = 2.0  # seconds for the watcher to end


def patience(stores: Stores, earlier: Sequence[Attempt], committed: int) -> float | None:
    """How long the ranks of the next attempt may be silent; None: nobody watches.

    earlier    the attempts before it
    committed  step of the newest checkpoint: hangs before it do not count any more
    """
    hangs = 0
    for attempt in reversed(earlier):
        if "waiting" not in attempt.detail or attempt.from_step < committed:
            break
        hangs += 1
    budget = Budget(hang=min(hangs, LIMITS["hang"]))
    return orders.hang_seconds(stores.settings, "gang", Starting(len(earlier) + 1, budget))


def is_debugged() -> bool:
    """Whether a debugger that lives in this process may hold it."""
    return sys.gettrace() is not None or "pydevd" in sys.modules


class Watch:
    """Of one run, from its beginning to its end in this process.

    begun    what the run's owner told all ranks
    folders  of the project's sources
    """

    def __init__(
        self, stores: Stores, seat: Seat, begun: dict[str, Any], folders: list[str]
    ) -> None:
        run_id = begun["run_id"]
        runtime = stores.layout.runtime(f"run/{run_id}")
        self._folder = runtime / f"gang-{begun['generation']}"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._words = open_words(self._folder, seat.world_size)
        self._rank = seat.rank
        self.pulse = Pulse(self._words, seat.rank)
        logs = stores.layout.logs(run_id)
        logs.mkdir(parents=True, exist_ok=True)
        file = logs / f"rank-{seat.rank}.stacks"
        self._stacks = stacks.register(file)
        self._said = announce(self._folder, seat.rank, file, folders)
        self._watcher: subprocess.Popen[bytes] | None = None
        if seat.local[0] == 0:
            _forget_earlier(runtime, self._folder)
            self._watcher = _start(stores, seat, begun, self._folder)

    def step_done(self, step: int) -> None:
        self._words.set_step(self._rank, step)

    def over(self) -> None:
        """The function ended here: what this rank waits for now is the end of the run."""
        self._said.unlink(missing_ok=True)

    def close(self) -> None:
        """The run ended."""
        self.over()
        if self._watcher is not None:
            _end(self._watcher)
            shutil.rmtree(self._folder, ignore_errors=True)
            with suppress(OSError):  # it is of use to others
                self._folder.parent.rmdir()
        stacks.unregister(self._stacks)
        os.close(self._words.fd)  # the map stays as long as somebody has it


def _forget_earlier(runtime: Path, mine: Path) -> None:
    """What gangs left that were killed."""
    for folder in runtime.glob("gang-*"):
        if folder != mine:
            shutil.rmtree(folder, ignore_errors=True)


def _start(
    stores: Stores, seat: Seat, begun: dict[str, Any], folder: Path
) -> subprocess.Popen[bytes]:
    spec = {
        "folder": str(folder),
        "meta": stores.settings.meta or stores.layout.meta_url,
        "run_id": begun["run_id"],
        "attempt": begun["attempt"],
        "generation": begun["generation"],
        "hang_seconds": begun["hang_seconds"],
        "world_size": seat.world_size,
        "here": seat.local[1],
        "parent": os.getpid(),
    }
    command = [sys.executable, "-m", "penstock.training.launched.watcher"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE)
    assert child.stdin is not None
    child.stdin.write(json.dumps(spec).encode() + b"\n")  # not as arguments, which all can read
    child.stdin.flush()
    return child


def _end(watcher: subprocess.Popen[bytes]) -> None:
    assert watcher.stdin is not None
    with suppress(OSError):
        watcher.stdin.close()
    try:
        watcher.wait(_END)
    except subprocess.TimeoutExpired:
        watcher.kill()
        watcher.wait()
