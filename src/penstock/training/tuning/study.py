"""The one row of a study: begun, gone on with, or found complete. Its trials are rows of runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, NamedTuple

from penstock.base import ids, process
from penstock.base.errors import LeaseHeld, Refused
from penstock.jobs import control
from penstock.meta import Writer
from penstock.records import Run
from penstock.records.runs import ENDED
from penstock.training import configuring
from penstock.training.deciding import changes_of
from penstock.training.tuning import reading
from penstock.training.tuning.setup import ANEW, Setup
from penstock.training.wanted import Wanted

OnChange = Literal["continue", "refuse", "fork"]


class Decided(NamedTuple):
    """reused: nothing is to be done."""

    study: Run
    why: str
    changed: list[str]
    reused: bool


def decide(
    tx: Writer, wanted: Wanted, setup: Setup, parallel: int, fresh: bool, on_change: OnChange
) -> Decided:
    """What the same name means now. Raises Refused, LeaseHeld."""
    last = None if fresh else tx.newest_run(wanted.name, "tune")
    if last is None:
        why = "fresh=True" if fresh else f'there is no study named "{wanted.name}" yet'
        return Decided(_create(tx, wanted, setup, parallel), why, [], False)
    wanted = wanted.going_on_from(last)
    _check_alone(tx, last)
    anew, other = _search_changes(last, setup)
    changed = changes_of(last, wanted)
    if not anew and not changed and last.state == "finished" and last.step >= setup.trials:
        count = f"all {setup.trials} trials are done"
        return Decided(last, f"{count}, and code, config and space are unchanged", [], True)
    lines = [*anew, *other, *changed]
    finished = last.state == "finished"
    if lines and on_change == "refuse" and not finished:
        raise Refused(
            f'study "{last.name}" is unfinished and changed: ' + "; ".join(lines[:5]),
            'Undo the change, or pass on_change="continue" or "fork".',
            changed=lines,
        )
    if anew or (changed and (finished or on_change == "fork")):
        was = "it finished, and then changed" if finished else "it is unfinished, and changed"
        return Decided(_create(tx, wanted, setup, parallel), was, lines, False)
    return _go_on(tx, last, wanted, setup, parallel, lines, bool(changed))


def end(
    tx: Writer, study: Run, state: str, result: dict[str, Any], error: dict[str, Any] | None
) -> Run:
    """How it ended; its owner gives the lease back."""
    run = tx.change_run(study.id, state=state, ended_at=tx.now(), error=error, result=result)
    tx.event(f"run/{study.id}", f"run.{state}", {"error": error} if error else {})
    return run


def _create(tx: Writer, wanted: Wanted, setup: Setup, parallel: int) -> Run:
    run = Run(
        id=ids.new_id("run"),
        name=wanted.name,
        work="tune",
        state="pending",
        spec=_spec(wanted, setup, parallel),
        code=wanted.code.digest,
        source=wanted.source,
        created_at=tx.now(),
    )
    tx.add_run(run, wanted.source_refs)
    tx.event(f"run/{run.id}", "run.created", {"name": run.name, "code": run.code})
    return run


def _spec(wanted: Wanted, setup: Setup, parallel: int) -> dict[str, Any]:
    """steps: of a study, trials; no controller: it goes on only with its script."""
    more = {"search": setup.as_data(), "steps": setup.trials, "parallel": parallel}
    return {**wanted.spec, **more, "controller": None}


def _go_on(
    tx: Writer,
    last: Run,
    wanted: Wanted,
    setup: Setup,
    parallel: int,
    changed: list[str],
    again: bool,
) -> Decided:
    """again: the code is another one, so trials that failed are tried again."""
    run = tx.change_run(
        last.id,
        state="pending",
        spec=_spec(wanted, setup, parallel),
        code=wanted.code.digest,
        source=wanted.source,
        error=None,
        ended_at=None,
    )
    for each in reading.rows(tx, last) if again else ():
        if each.state == "failed":
            tx.change_run(each.id, state="pending", error=None, ended_at=None)
    tx.event(f"run/{run.id}", "run.continued", {"changed": changed, "was": last.state})
    tx.refer(f"run/{run.id}", wanted.source_refs)
    if last.state == "finished":
        return Decided(run, f"it has {last.step} of {setup.trials} trials", changed, False)
    was = last.state if last.state in ENDED else "interrupted"
    why = f"it is unfinished ({was} with {last.step} of {setup.trials} trials begun)"
    return Decided(run, why, changed, False)


def _search_changes(last: Run, setup: Setup) -> tuple[list[str], list[str]]:
    """(what needs a new study, what does not), a line each; how many trials is no change."""
    old, new = last.spec["search"], setup.as_data()
    anew: list[str] = []
    other: list[str] = []
    for key in new:
        if key != "trials":
            lines = configuring.changes(_plain(old[key]), _plain(new[key]), key)
            (anew if key in ANEW else other).extend(lines)
    return anew, other


def _plain(value: Any) -> Any:
    """As JSON has it, where a tuple is a list."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _check_alone(tx: Writer, last: Run) -> None:
    owner = control.owner(tx.find_lease(f"run/{last.id}"), tx.now())
    if owner is not None and owner != process.Identity.mine():
        raise LeaseHeld(
            f'study "{last.name}" is going on already (pid {owner.pid} on {owner.host})',
            f"Wait, or stop it: penstock runs stop {last.name}",
            pid=owner.pid,
            run=last.id,
        )


def trial_wanted(
    wanted: Wanted, study: Run, number: int, params: dict[str, Any], config: Any
) -> Wanted:
    """What a trial's run asks for: all that the study does, with its own values."""
    about = {"run": study.id, "name": study.name, "trial": number, "params": params}
    spec = {**wanted.spec, "config": configuring.pack(config), "study": about, "stopping": None}
    name = reading.trial_name(study, number)
    return replace(wanted, name=name, spec=spec).beginning(None)
