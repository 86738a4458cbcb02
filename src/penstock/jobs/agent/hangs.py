"""The agent's eye on a gang that may hang: looks at the words, takes stacks, gives an account.

`penstock.jobs.hang` decides; here are the clock, the processes and the files. Nothing is killed
here: the account goes to the controller, which ends the attempt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from penstock.base import log, process
from penstock.jobs import hang, stacks
from penstock.jobs.agent.taking import Taking, Watched
from penstock.jobs.words import PHASES, Words

_ANSWER = 2.0  # seconds for a rank to write its stacks
_SLEPT = 5.0  # seconds between two looks after which not only the ranks stood still
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a device",
    "T": "stopped by SIGSTOP",
}
_log = log.logger("agent")


class HangWatch:
    """Of one gang. `look` is called again and again; `account` is there once the gang hangs.

    floor   seconds without a sign of life within a step; see the setting `hang_seconds`
    clock   nanoseconds, the one that ranks mark their words by
    others  whether the gang has ranks that are not seen from here, on other machines. Then whoever
            waits for other ranks is let be for longer: one of those may be at something slow, and
            where it is that hangs it is seen
    """

    def __init__(
        self,
        words: Words,
        ranks: Mapping[int, Watched],
        floor: float,
        clock: Callable[[], int] = time.monotonic_ns,
        others: bool = False,
    ) -> None:
        self.account: dict[str, Any] | None = None
        self._words = words
        self._ranks = ranks
        self._floor = floor
        self._clock = clock
        self._fresh = self._looked = clock()  # nobody is older than this
        self._taking = Taking(ranks)
        self._deadline: int | None = None  # for the stacks that were asked for
        self._traced = False
        self._others = others
        self._next = 0  # time of the next look for whom we wait for others

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
        if not late or self._traced or now < self._next:
            self._deadline = None  # also when it went on while its stacks were taken
            return False
        if self._deadline is None:
            self._deadline = now + int(_ANSWER * 1e9)
            self._taking.ask()
            return False
        if now < self._deadline and not self._taking.is_done():
            return False
        account = self._give_account(beats)
        if self._others and account["waits"] and account["seconds"] < hang.PATIENCE:
            self._next = now + int(self._floor * 1e9)
            return False
        self.account = account
        _log.warning("the gang hangs", extra=log.facts(**account))
        return True

    def _beats(self, now: int) -> list[hang.Beat]:
        """Of the ranks that are still at it."""
        steps = self._words.steps()
        found = []
        for rank, each in self._ranks.items():
            if each.dead or each.told_end:
                continue
            phase, at = self._words.mark(rank)
            age = (now - max(at, self._fresh)) / 1e9
            longest = self._words.longest(rank)
            found.append(hang.Beat(rank, steps[rank], PHASES[phase], age, longest))
        return found

    def _is_traced(self) -> bool:
        """A debugger holds one of them: its user may think as long as he likes."""
        pids = [each.pid for each in self._ranks.values() if each.pid is not None]
        return any(process.is_traced(process.status(pid)) for pid in pids)

    # -- the account ----------------------------------------------------------------------------

    def _look_at(self, beat: hang.Beat) -> hang.Look:
        rank = self._ranks[beat.rank]
        told = process.status(rank.pid) if rank.pid is not None else {}
        stopped = process.is_stopped(told)
        frames = [] if stopped else stacks.main_thread(self._taking.read(beat.rank))
        mine = stacks.innermost(frames, rank.folders)
        called = frames[:mine]  # all of them where no frame is the project's
        where = frames[mine] if mine is not None else (frames[0] if frames else None)
        kernel = process.kernel_stack(rank.pid) if rank.pid is not None and not frames else []
        state = _STATES.get(told.get("State", "?")[:1], "not there")
        return hang.Look(
            rank=beat.rank,
            step=beat.step,
            phase=beat.phase,
            seconds=round(beat.age, 1),
            state=state if stopped or not kernel else f"{state} in {kernel[0]}",
            where=None if where is None else stacks.named(where, rank.folders),
            inside=stacks.named(called[0]) if called and mine is not None else None,
            waits=stacks.waits(called),
            kernel=kernel,
        )

    def _give_account(self, beats: list[hang.Beat]) -> dict[str, Any]:
        looks = [self._look_at(beat) for beat in beats]
        culprit = hang.accused(looks)
        waiting = hang.waiting(looks, culprit)
        return {**asdict(culprit), "waiting": waiting, "ranks": [asdict(each) for each in looks]}
