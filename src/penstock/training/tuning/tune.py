"""`tune`: search over a config's values, each trial an ordinary run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from penstock.base import units
from penstock.base.errors import BadInput, NotFound, PenstockError, RunStopped
from penstock.base.interrupts import counted
from penstock.jobs.holding import Holding
from penstock.jobs.stores import Stores, pinned
from penstock.records import Run
from penstock.records.runs import ENDED
from penstock.training.follow import stop_early
from penstock.training.tuning import reading, study, telling
from penstock.training.tuning.driver import Driver, Limits, failures
from penstock.training.tuning.history import SETTLED, Trial, best_of, counts
from penstock.training.tuning.setup import Setup, checked
from penstock.training.wanted import Place, subject_of, wanted_of
from penstock.training.watching import OnProgress


@dataclass(frozen=True)
class Tuned:
    """What a search gave.

    study   its row
    trials  all of them, by number: `.number`, `.state`, `.value`, `.params`, `.run`, `.name`,
            `.step`, `.model`, `.reason`
    best    the best complete trial; None where no metric was named
    reused  nothing ran: all trials were done before
    """

    study: Run
    trials: list[Trial]
    best: Trial | None
    reused: bool
    why: str
    changed: list[str] = field(default_factory=list)

    @property
    def best_params(self) -> dict[str, Any]:
        return self._best.params

    @property
    def best_value(self) -> float:
        assert self._best.value is not None
        return self._best.value

    @property
    def best_run(self) -> str:
        """The name of the best trial's run."""
        return self._best.name

    @property
    def model(self) -> str | None:
        """Reference of what the best trial published; None without one."""
        return None if self.best is None else self.best.model

    @property
    def _best(self) -> Trial:
        if self.best is None:
            raise NotFound(
                f'study "{self.study.name}" has no best trial: no metric was named',
                'Name what run.log tells: metric="val/accuracy", direction="maximize".',
            )
        return self.best

    @property
    def reference(self) -> str:
        """The model's reference. Raises NotFound when the best trial published none."""
        if self._best.model is None:
            raise NotFound(
                f'run "{self._best.name}" published no model',
                "Call run.publish(NAME, model, example=…) in the training function.",
            )
        return self._best.model


def tune(
    stores: Stores,
    function: Callable[..., None],
    space: Mapping[str, Any],
    config: Any = None,
    *,
    metric: str | None = None,
    direction: str | None = None,
    trials: int | None = None,
    name: str | None = None,
    value: str = "last",
    sampler: str = "tpe",
    pruner: str = "none",
    warmup: int | None = None,
    parallel: int = 1,
    workers: int = 1,
    threads: int | None = None,
    timeout: float | str | None = None,
    max_failures: int | None = None,
    preload: Sequence[str] = (),
    seed: int = 0,
    checkpoint_every: int | str = "auto",
    fresh: bool = False,
    on_change: study.OnChange = "continue",
    say: Callable[[str], None] = lambda line: None,
    on_progress: OnProgress | None = None,
) -> Tuned:
    """See `penstock.home.verbs.tune`, which is this on the current home."""
    _check(workers, parallel, max_failures)
    setup = checked(
        space, config, metric=metric, direction=direction, value=value, trials=trials,
        sampler=sampler, pruner=pruner, warmup=warmup, seed=seed,
    )  # fmt: skip
    limits = Limits(parallel, _deadline(timeout), max_failures)
    row: Run | None = None
    counting = ExitStack()
    try:
        with pinned(stores.meta):
            wanted = wanted_of(
                stores,
                subject_of(function),
                config,
                Place(workers, here=workers * parallel),
                name=name,
                detach=False,
                checkpoint_every=checkpoint_every,
                seed=seed,
                threads=threads,
                preload=preload,
            ).beginning(None)
            interrupts = counting.enter_context(counted())
            with stores.meta.write() as tx:
                row, why, changed, reused = study.decide(
                    tx, wanted, setup, parallel, fresh, on_change
                )
        if reused:
            say(f"reused study {row.name}, because {why}")
            return _tuned(stores, row, setup, True, why, [], say)
        say(f"running study {row.name}, because {why}")
        for line in changed:
            say(f"  changed: {line}")
        wanted = wanted.going_on_from(row)
        driver_of = partial(
            Driver, stores, row, setup, wanted, config, limits, say, on_progress, interrupts
        )
        row = _carry_out(stores, row, setup, driver_of)
        return _tuned(stores, row, setup, False, why, changed, say)
    except KeyboardInterrupt:
        if row is None or row.state in ENDED:
            raise
        raise stop_early(stores, row) from None
    finally:
        counting.close()


def _carry_out(
    stores: Stores, row: Run, setup: Setup, driver_of: Callable[[Holding], Driver]
) -> Run:
    """Own the study, carry it out, and write how it ended. Raises what the driver raises."""
    holding = Holding(stores, row.id)
    found = holding.take()
    if found.state in ENDED:  # stopped before it had an owner
        raise RunStopped(f'study "{row.name}" was stopped', "Run the script again.", run=row.id)
    holding.commit(lambda tx: tx.change_run(row.id, state="running"))
    driver = driver_of(holding)
    try:
        trials = driver.run()
        if trials and all(each.state == "failed" for each in trials):
            raise failures(row, trials)
    except BaseException as error:
        state = "stopped" if isinstance(error, RunStopped | KeyboardInterrupt) else "failed"
        told = error.as_dict() if isinstance(error, PenstockError) and state == "failed" else None
        _end(holding, row, setup, list(driver.trials.values()), state, told)
        raise
    done = sum(each.state in SETTLED for each in trials)
    state = "finished" if done >= setup.trials else "stopped"
    ended = _end(holding, row, setup, trials, state, None)
    if not any(each.state == "complete" for each in trials):
        raise driver.stopped()
    return ended


def _end(
    holding: Holding,
    row: Run,
    setup: Setup,
    trials: list[Trial],
    state: str,
    error: dict[str, Any] | None,
) -> Run:
    best = best_of(trials, setup.direction)
    result: dict[str, Any] = {"trials": counts(trials)}
    if best is not None:
        result |= {"best": best.name, "value": best.value, "params": best.params}
        result |= {"model": best.model} if best.model else {}
    ended = holding.commit(lambda tx: study.end(tx, row, state, result, error))
    holding.release()
    return ended


def _tuned(
    stores: Stores,
    row: Run,
    setup: Setup,
    reused: bool,
    why: str,
    changed: list[str],
    say: Callable[[str], None],
) -> Tuned:
    trials = reading.trials(stores, row)
    best = best_of(trials, setup.direction)
    open_ones = sum(each.state not in SETTLED for each in trials) + setup.trials - len(trials)
    if open_ones > 0 and not reused:
        say(f"{units.show_count(open_ones, 'trial')} left; the same call goes on with them")
    if best is not None:
        say(f"best: {best.name}, {setup.metric} {best.value:.6g}, {telling.params(best.params)}")
    return Tuned(row, trials, best, reused, why, changed)


def _check(workers: int, parallel: int, max_failures: int | None) -> None:
    if workers == 0:
        raise BadInput(
            "workers=0 trains in this process, where trials of a search cannot run",
            "Give workers=1; to debug the function, ps.train it with workers=0.",
        )
    if parallel < 1 or (max_failures is not None and max_failures < 0):
        raise BadInput(
            f"parallel={parallel}, max_failures={max_failures} is not possible",
            "Give parallel 1 or more, and max_failures 0 or more, or None.",
        )


def _deadline(timeout: float | str | None) -> float | None:
    """Monotonic seconds. Raises BadInput."""
    return None if timeout is None else time.monotonic() + units.seconds(timeout)
