"""Carries a study out: begins trials, follows them, gives some up, until all are done.

The script owns the study by the lease of its row, as a controller owns a run. Each trial is begun
in one transaction under it, which also counts it: whoever dies on any line leaves a number with a
row, which goes on, or neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from penstock.base.errors import BadInput, LeaseHeld, RunFailed, RunStopped
from penstock.base.interrupts import Interrupts
from penstock.base.nearest import did_you_mean
from penstock.base.units import show_count
from penstock.jobs.holding import Holding
from penstock.jobs.stores import Stores
from penstock.meta import Writer
from penstock.records import Run
from penstock.training import deciding, early
from penstock.training.tuning import pruning, reading, sampling, telling
from penstock.training.tuning.history import SETTLED, Trial, best_of, thinned
from penstock.training.tuning.live import Live
from penstock.training.tuning.setup import Setup, with_params
from penstock.training.tuning.study import trial_wanted
from penstock.training.wanted import Wanted
from penstock.training.watching import OnProgress, Progress

_WAIT = 0.2  # seconds for the next event
_GRACE = 15.0  # seconds for trials to save and leave, when the study cannot go on
_EVERY = 0.5  # seconds between two words of progress


@dataclass(frozen=True)
class Limits:
    """parallel: trials at once; deadline: no trial begins after it (monotonic seconds);
    failures: trials that may fail before the study ends, None: all"""

    parallel: int
    deadline: float | None
    failures: int | None


class Driver:
    """One call's. `run` returns when no trial is under way and none is to begin."""

    def __init__(
        self,
        stores: Stores,
        study: Run,
        setup: Setup,
        wanted: Wanted,
        config: Any,
        limits: Limits,
        say: Callable[[str], None],
        on_progress: OnProgress | None,
        interrupts: Interrupts,
        holding: Holding,
    ) -> None:
        self._stores, self._study, self._setup = stores, study, setup
        self._wanted, self._config, self._limits = wanted, config, limits
        self._say, self._on_progress, self._interrupts = say, on_progress, interrupts
        self._holding = holding
        self._live: dict[int, Live] = {}
        self._left: set[int] = set()  # trials that somebody stopped: they wait for the next call
        self._heard = 0
        self._stopping = False
        self._next_word = 0.0
        self.trials: dict[int, Trial] = {}

    def run(self) -> list[Trial]:
        """The trials, by number, as they are when nothing more is to be done in this call.

        Raises RunStopped, BadInput (the metric is never logged), RunFailed, DiskFull, LeaseLost.
        """
        self.trials = {each.number: each for each in reading.trials(self._stores, self._study)}
        try:
            with self._stores.meta.read() as db:
                cursor = db.last_event()
            while self._step():
                events = self._stores.meta.wait_events(cursor, subject="run/*", timeout=_WAIT)
                cursor = events[-1].seq if events else cursor
        except BaseException:
            self._leave()
            raise
        if self._stopping:
            raise self.stopped()
        return [self.trials[number] for number in sorted(self.trials)]

    def stopped(self) -> RunStopped:
        done = sum(each.state in SETTLED for each in self.trials.values())
        return RunStopped(
            f'study "{self._study.name}" was stopped with {done} of '
            f"{show_count(self._setup.trials, 'trial')} done",
            "Run the script again to go on.",
            run=self._study.id,
            done=done,
        )

    def _step(self) -> bool:
        """One look at everything. Returns whether anything is to be waited for."""
        try:
            self._holding.renew()
            self._hear()
            for live in list(self._live.values()):
                self._follow(live)
            if not self._stopping:
                self._begin_more()
            self._tell_progress()
        except KeyboardInterrupt:  # by a handler that is not ours, or one too many for ours
            self._interrupts.hear()
        return bool(self._live)

    # -- beginning ------------------------------------------------------------------------------

    def _begin_more(self) -> None:
        for number in sorted(self.trials):
            if len(self._live) >= self._limits.parallel:
                return
            going_on = self.trials[number].state not in SETTLED
            if going_on and number not in self._live and number not in self._left:
                self._go_on(number)
        late = self._limits.deadline is not None and time.monotonic() >= self._limits.deadline
        while not late and len(self._live) < self._limits.parallel:
            number = self._study.step
            if number >= self._setup.trials:
                return
            self._begin(number)

    def _begin(self, number: int) -> None:
        setup = self._setup
        before = [self.trials[each] for each in sorted(self.trials)]
        params = sampling.propose(
            setup.sampler, setup.space, setup.seed, number, before, setup.direction
        )
        wanted = self._wanted_for(number, params)

        def change(tx: Writer) -> tuple[Run, Run]:
            run = deciding.create(tx, wanted, self._stores)
            study = tx.change_run(self._study.id, step=number + 1)
            body = {"trial": number, "run": run.id, "params": params}
            tx.event(f"run/{study.id}", "trial.begun", body)
            return run, study

        run, self._study = self._holding.commit(change)
        self._start(run)
        self._say(f"trial {number}: {telling.params(params)}")

    def _go_on(self, number: int) -> None:
        """An unfinished trial: followed where somebody carries it out, started anew where not."""
        found = self.trials[number]
        if found.state == "running":
            with self._stores.meta.read() as db:
                run, cursor = db.get_run(found.run), db.last_event()
            self._live[number] = Live(self._stores, self._setup, run, None, cursor)
            return
        with suppress(LeaseHeld):  # somebody was quicker: the next look finds it running
            self._start(self._next_attempt(found))
            self._say(f"trial {number} goes on at step {found.step}")
            return
        self.trials[number] = reading.again(self._stores, self._setup, found)

    def _next_attempt(self, found: Trial) -> Run:
        wanted = self._wanted_for(found.number, found.params)

        def change(tx: Writer) -> Run:
            last = tx.get_run(found.run)
            return deciding.go_on(
                tx,
                last,
                wanted.going_on_from(last),
                deciding.changes_of(last, wanted),
                self._stores,
            )[0]

        return self._holding.commit(change)

    def _wanted_for(self, number: int, params: dict[str, Any]) -> Wanted:
        config = with_params(self._config, params)
        return trial_wanted(self._wanted, self._study, number, params, config)

    def _start(self, run: Run) -> None:
        with self._stores.meta.read() as db:
            cursor = db.last_event()
        child = early.start(self._stores, run)
        live = Live(self._stores, self._setup, run, child, cursor)
        self._live[live.number] = live
        self.trials[live.number] = live.trial

    # -- following ------------------------------------------------------------------------------

    def _follow(self, live: Live) -> None:
        how = live.poll()
        self.trials[live.number] = live.trial
        if how == "ended":
            del self._live[live.number]
            self._settle(live)
        elif how == "orphan" and not self._stopping:
            with suppress(LeaseHeld):
                run = self._next_attempt(live.trial)
                live.revive(early.start(self._stores, run), run)
                self._say(f"trial {live.number} was interrupted, and goes on at step {run.step}")
        elif how == "orphan":
            live.stop()
        else:
            self._judge(live)

    def _judge(self, live: Live) -> None:
        others = [each for number, each in self.trials.items() if number != live.number]
        for until in live.unjudged():
            why = pruning.prune(self._setup.rule, live.trial, until, others)
            if why is not None:
                live.stop(f"{reading.PRUNED}: {why}")
                return

    def _settle(self, live: Live) -> None:
        """What became of a trial is remembered, said, and looked at."""
        trial = live.trial
        if trial.state not in SETTLED:
            if live.was_stopped():
                self._left.add(trial.number)
                if not self._stopping:
                    self._say(f"trial {trial.number} was stopped at step {trial.step}")
            return

        def change(tx: Writer) -> None:
            if trial.state in ("complete", "pruned") and trial.value is not None:
                key = reading.memory_key(live.run)
                tx.remember(key, "trial", reading.memory_of(trial), ())
            body = {"trial": trial.number, "state": trial.state, "value": trial.value}
            tx.event(f"run/{self._study.id}", "trial.ended", body)

        self._holding.commit(change)
        self.trials[trial.number] = replace(trial, curve=thinned(trial.curve))
        best = best_of(self.trials.values(), self._setup.direction)
        self._say(telling.ended(trial, self._setup.metric, best))
        if trial.state == "failed":
            self._look_at_failure(live)

    def _look_at_failure(self, live: Live) -> None:
        """Raises BadInput where no trial could do better, RunFailed where too many failed."""
        complete = any(each.state == "complete" for each in self.trials.values())
        metric = self._setup.metric
        if live.run.state == "finished" and live.trial.value is None and metric and not complete:
            raise BadInput(
                f'{live.run.name} finished without logging "{metric}"',
                did_you_mean(metric, [n for n in live.names if "penstock/" not in n]),
                metric=metric,
            )
        failed = sum(each.state == "failed" for each in self.trials.values())
        if self._limits.failures is not None and failed > self._limits.failures:
            raise failures(self._study, list(self.trials.values()))

    # -- ending ---------------------------------------------------------------------------------

    def _hear(self) -> None:
        """Ctrl-C, and `penstock runs stop` from elsewhere."""
        if self._heard < self._interrupts.count:
            self._heard = self._interrupts.count
            if self._heard == 1:
                self._say("stopping: trials save a checkpoint; Ctrl-C again kills them")
            for live in self._live.values():
                live.stop() if self._heard == 1 else live.kill()
            self._stopping = True
        if not self._stopping:
            with self._stores.meta.read() as db:
                self._stopping = db.get_run(self._study.id).state == "stopping"
            for live in self._live.values() if self._stopping else ():
                live.stop()

    def _leave(self) -> None:
        """The study cannot go on: its trials save and leave. What still runs then ends by itself,
        when this process does."""
        deadline = time.monotonic() + _GRACE
        for live in self._live.values():
            with suppress(Exception):
                live.stop()
        for live in self._live.values():
            if live.child is not None:
                with suppress(Exception):
                    live.child.wait(max(0.1, deadline - time.monotonic()))

    def _tell_progress(self) -> None:
        now = time.monotonic()
        if self._on_progress is None or now < self._next_word:
            return
        self._next_word = now + _EVERY
        done = sum(each.state in SETTLED for each in self.trials.values())
        best = best_of(self.trials.values(), self._setup.direction)
        values = {"running": float(len(self._live))}
        if best is not None and best.value is not None:
            values = {f"best {self._setup.metric}": best.value, **values}
        self._on_progress(Progress(self._study.name, done, self._setup.trials, values))


def failures(study: Run, trials: list[Trial]) -> RunFailed:
    """Too many trials failed: how many, and why the first did."""
    failed = [each for each in trials if each.state == "failed"]
    first = failed[0]
    return RunFailed(
        f'{len(failed)} of {show_count(len(trials), "trial")} of study "{study.name}" failed; '
        f"trial {first.number}: {first.reason}",
        f"Mend it and run the script again: with changed code they are tried again. "
        f"penstock runs show {first.name} has all of it.",
        run=study.id,
        failed=[each.number for each in failed],
    )
