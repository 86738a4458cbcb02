"""The agent's eye on a gang that may hang: looks at the words, takes stacks, gives an account.

`penstock.jobs.hang` decides; here are the clock, the processes and the files. Nothing is killed
here: the account goes to the controller, which ends the attempt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from penstock.base import log, process
from penstock.jobs import hang, stacks
from penstock.jobs.agent.children import Child
from penstock.jobs.words import PHASES, Words

_ANSWER = 2.0  # seconds for a rank to write its stacks
_SLEPT = 5.0  # seconds between two looks after which not only the ranks stood still
_STOPPED = "stopped by SIGSTOP"
_STATES = {"R": "running", "S": "sleeping", "D": "waiting for a device", "T": _STOPPED}
_log = log.logger("agent")


class HangWatch:
    """Of one gang. `look` is called again and again; `account` is there once the gang hangs.

    floor  seconds without a sign of life within a step; see the setting `hang_seconds`
    clock  nanoseconds, the one that ranks mark their words by
    """

    def __init__(
        self,
        words: Words,
        ranks: Mapping[int, Child],
        floor: float,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.account: dict[str, Any] | None = None
        self._words = words
        self._ranks = ranks
        self._floor = floor
        self._clock = clock
        self._fresh = self._looked = clock()  # nobody is older than this
        self._asked: dict[int, int] = {}  # rank -> bytes of its file of stacks before it was asked
        self._sizes: dict[int, int] = {}
        self._deadline: int | None = None  # for the stacks that were asked for
        self._traced = False

    def look(self) -> bool:
        """Whether the gang was found to hang, now; once."""
        if self.account is not None:
            return False
        now = self._clock()
        if now - self._looked > _SLEPT * 1e9:
            self._fresh = now  # a suspended machine, a frozen container: the ranks stood still too
        self._looked = now
        beats = self._beats(now)
        late = hang.late(beats, self._floor)
        if late or self._traced:
            self._traced = self._is_traced()
        if self._traced:
            self._fresh = now
        if not late or self._traced:
            self._deadline = None  # also when it went on while its stacks were taken
            return False
        if self._deadline is None:
            self._ask(now)
            return False
        if now < self._deadline and not self._answered():
            return False
        self.account = self._give_account(beats)
        return True

    def _beats(self, now: int) -> list[hang.Beat]:
        """Of the ranks that are still at it."""
        steps = self._words.steps()
        found = []
        for rank, child in self._ranks.items():
            if child.dead or child.told_end:
                continue
            phase, at = self._words.mark(rank)
            age = (now - max(at, self._fresh)) / 1e9
            longest = self._words.longest(rank)
            found.append(hang.Beat(rank, steps[rank], PHASES[phase], age, longest))
        return found

    def _is_traced(self) -> bool:
        """A debugger holds one of them: its user may think as long as he likes."""
        pids = [child.pid for child in self._ranks.values() if child.pid is not None]
        return any(process.is_traced(process.status(pid)) for pid in pids)

    # -- stacks ---------------------------------------------------------------------------------

    def _file(self, rank: int) -> Path:
        return Path(self._ranks[rank].request["payload"]["stacks"])

    def _size(self, rank: int) -> int:
        path = self._file(rank)
        return path.stat().st_size if path.exists() else 0

    def _ask(self, now: int) -> None:
        """All ranks for their stacks; not one that has no handler yet, which would die of it."""
        self._deadline = now + int(_ANSWER * 1e9)
        self._asked, self._sizes = {}, {}
        for rank, child in self._ranks.items():
            if child.pid is None or child.dead:
                continue
            if process.handles(process.status(child.pid), stacks.SIGNAL):
                self._asked[rank] = self._size(rank)
                process.kill_quietly(child.pid, stacks.SIGNAL)

    def _answered(self) -> bool:
        """Whether every file grew, and not since the last look."""
        before, self._sizes = self._sizes, {rank: self._size(rank) for rank in self._asked}
        return before == self._sizes and all(
            self._sizes[rank] > size for rank, size in self._asked.items()
        )

    def _read(self, rank: int) -> str:
        """What a rank wrote of its stacks; "" when it could not answer."""
        if rank not in self._asked or not self._file(rank).exists():
            return ""
        with self._file(rank).open("rb") as stream:
            stream.seek(self._asked[rank])
            return stream.read().decode(errors="replace")

    # -- the account ----------------------------------------------------------------------------

    def _look_at(self, beat: hang.Beat) -> hang.Look:
        child = self._ranks[beat.rank]
        told = process.status(child.pid) if child.pid is not None else {}
        state = told.get("State", "?")[:1]
        folders = child.request["payload"].get("paths", [])
        frames = [] if state == "T" else stacks.main_thread(self._read(beat.rank))
        mine = stacks.innermost(frames, folders)
        called = frames[:mine]  # all of them where no frame is the project's
        where = frames[mine] if mine is not None else (frames[0] if frames else None)
        return hang.Look(
            rank=beat.rank,
            step=beat.step,
            phase=beat.phase,
            seconds=round(beat.age, 1),
            state=self._state(child.pid, state, answered=bool(frames)),
            where=None if where is None else stacks.named(where, folders),
            inside=stacks.named(called[0]) if called and mine is not None else None,
            waits=stacks.waits(called),
        )

    @staticmethod
    def _state(pid: int | None, letter: str, answered: bool) -> str:
        """Of a process that could not tell its stack also where in the kernel it sleeps."""
        told = _STATES.get(letter, "not there")
        kernel = process.waits_in(pid) if pid is not None and not answered else None
        return told if kernel is None or told == _STOPPED else f"{told} in {kernel}"

    def _give_account(self, beats: list[hang.Beat]) -> dict[str, Any]:
        looks = [self._look_at(beat) for beat in beats]
        culprit = hang.accused(looks)
        waiting = hang.waiting(looks, culprit)
        account = {**asdict(culprit), "waiting": waiting, "ranks": [asdict(each) for each in looks]}
        _log.warning("the gang hangs", extra=log.facts(**account))
        return account
