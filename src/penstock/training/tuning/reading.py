"""Trials read back: from the rows of their runs, what these logged, and what was remembered.

There is no other record of a trial. A run's row says how it ended; `stopped` with a reason that
begins with "pruned" is a trial that was given up; all other unfinished ones go on.
"""

from __future__ import annotations

import math
from typing import Any

from penstock.base.errors import NotFound
from penstock.jobs import control
from penstock.jobs.stores import Stores
from penstock.meta import Reader
from penstock.records import Run
from penstock.records.runs import ENDED
from penstock.signals import Curve
from penstock.training.tuning.history import Curve as Curved
from penstock.training.tuning.history import State, Trial, thinned, value_of
from penstock.training.tuning.setup import Setup

PRUNED = "pruned"
_SAME_NAME = 50  # newest runs of a trial's name that are looked through


def find(db: Reader, name: str) -> Run:
    """A study by its name. Raises NotFound, which names those there are."""
    study = db.newest_run(name, "tune")
    if study is None:
        known = sorted({run.name for run in db.runs(limit=1000) if run.work == "tune"})
        there = f"There are: {', '.join(known)}." if known else "ps.tune starts one."
        raise NotFound(f'there is no study "{name}"', there, study=name)
    return study


def trial_name(study: Run, number: int) -> str:
    """The name of a trial's run."""
    return f"{study.name}/{number}"


def rows(db: Reader, study: Run) -> list[Run]:
    """The runs of a study's trials, by number. Other runs that took such a name are left out."""
    found = []
    for number in range(study.step):
        name = trial_name(study, number)
        run = db.newest_run(name, "train")
        if run is None or not _is_of(run, study):
            same = db.runs(limit=_SAME_NAME, name=name)
            run = next((each for each in same if _is_of(each, study)), None)
        if run is not None:
            found.append(run)
    return found


def trials(stores: Stores, study: Run) -> list[Trial]:
    """All trials of a study, as they are now."""
    setup = Setup.of(study)
    with stores.meta.read() as db:
        found = [
            (run, control.state_of(run, db.find_lease(f"run/{run.id}"), db.now()), _recall(db, run))
            for run in rows(db, study)
        ]
    return [trial(stores, setup, run, state, memory) for run, state, memory in found]


def trial(
    stores: Stores, setup: Setup, run: Run, state: str, memory: dict[str, Any] | None
) -> Trial:
    """One trial.

    state   of its run, as `control.state_of` gives it
    memory  what `remember` stored; None: its signals are read
    """
    if memory is not None:
        curve = [(int(step), float(value)) for step, value in memory["curve"]]
        return trial_with(setup, run, state, curve, float(memory["value"]))
    reader = Curve(stores.layout.signals(run.id), setup.metric or "", int(run.spec["world_size"]))
    return trial_with(setup, run, state, reader.look(final=run.state in ENDED))


def again(stores: Stores, setup: Setup, known: Trial) -> Trial:
    """The same trial as it is now."""
    with stores.meta.read() as db:
        run = db.get_run(known.run)
        state = control.state_of(run, db.find_lease(f"run/{run.id}"), db.now())
        memory = _recall(db, run)
    return trial(stores, setup, run, state, memory)


def trial_with(
    setup: Setup, run: Run, state: str, curve: Curved, value: float | None = None
) -> Trial:
    """One trial whose curve is known; without a value it is the curve's."""
    if value is None:
        value = value_of(curve, setup.value, setup.direction)
    how, reason = _how(run, state, setup.metric, value)
    return Trial(
        number=run.spec["study"]["trial"],
        run=run.id,
        name=run.name,
        state=how,
        params=run.spec["study"]["params"],
        value=value,
        step=run.step,
        model=run.result.get("model"),
        reason=reason,
        created_at=run.created_at,
        ended_at=run.ended_at,
        curve=curve,
    )


def memory_of(found: Trial) -> dict[str, Any]:
    """What is remembered of a trial that is complete or pruned, so that nobody reads all of its
    signals again."""
    return {"value": found.value, "curve": [list(each) for each in thinned(found.curve)]}


def memory_key(run: Run) -> str:
    """Under what: a run that was given up, and then let go on by hand, ends another time."""
    return f"trial/{run.id}/{run.state}"


def _recall(db: Reader, run: Run) -> dict[str, Any] | None:
    return db.recall(memory_key(run)) if run.state in ("finished", "stopped") else None


def _is_of(run: Run, study: Run) -> bool:
    return ((run.spec.get("study") or {}).get("run")) == study.id


def _how(run: Run, state: str, metric: str | None, value: float | None) -> tuple[State, str | None]:
    """(state of the trial, reason)."""
    why = run.spec.get("stopping") or ""
    if state == "finished":
        if metric is None:
            return "complete", None
        if value is None:
            return "failed", f"it never logged {metric}"
        if math.isnan(value):
            return "failed", f"{metric} is not a number"
        return "complete", None
    if state == "failed":
        return "failed", str((run.error or {}).get("what", "it failed"))
    if state == "stopped" and why.startswith(PRUNED):
        return "pruned", why.removeprefix(PRUNED).lstrip(": ") or None
    if state in ("stopped", "interrupted", "pending"):
        return "waiting", None
    return "running", None
