"""What a call means for the runs that there are: a new run, the old one gone on with, or reused.

In one transaction, so that two calls at the same time never decide the same twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from penstock.base import ids
from penstock.base.errors import LeaseHeld, Refused
from penstock.jobs import control
from penstock.jobs.source import difference
from penstock.jobs.stores import Stores
from penstock.meta import Writer
from penstock.records import Run
from penstock.records.runs import ENDED
from penstock.training import configuring, controller, initial
from penstock.training.wanted import Wanted, compared

OnChange = Literal["continue", "refuse", "fork"]


@dataclass(frozen=True)
class Decided:
    """run      its row, made or changed
    why      one sentence
    changed  what differs from the attempt before, a line each
    reused   there is nothing to do
    notes    what is to be said of the weights that it begins with
    """

    run: Run
    why: str
    changed: list[str]
    reused: bool
    notes: list[str]

    def tell(self, say: Callable[[str], None]) -> None:
        if self.reused:
            say(f"reused run {self.run.name}, because {self.why}")
            return
        say(f"running {self.run.name}, because {self.why}")
        for line in self.changed:
            say(f"  changed: {line}")
        for line in self.notes:
            say(f"init_from: {line}")
        if not self.run.source:
            say("its function is in no file: no other process can go on with this run")


def decide(
    stores: Stores, wanted: Wanted, notes: list[str], fresh: bool, on_change: OnChange
) -> Decided:
    """What to do, committed. Raises LeaseHeld, Refused."""
    with stores.meta.write() as tx:
        run, why, changed, reused = _decide(tx, wanted, fresh, on_change, stores)
    return Decided(run, why, changed, reused, notes)


@dataclass
class Choosing:
    """The same call, to be decided again where the first try finds an owner that may be dead."""

    stores: Stores
    wanted: Callable[[], Wanted]
    fresh: bool
    on_change: OnChange
    init_from: str | None
    _asked: tuple[Wanted, list[str]] | None = None

    def __call__(self) -> Decided:
        """Raises what `with_weights` and `decide` raise, and what `wanted` does."""
        if self._asked is None:
            self._asked = with_weights(self.stores, self.wanted(), self.init_from, self.fresh)
        return decide(self.stores, *self._asked, self.fresh, self.on_change)


def with_weights(
    stores: Stores, wanted: Wanted, init_from: str | None, fresh: bool
) -> tuple[Wanted, list[str]]:
    """Where the weights come from, and what is to be said of it. Resolved once: a run that was
    asked the same, and goes on or is only returned, keeps what it got. Raises NotFound, Damaged."""
    with stores.meta.read() as db:
        last = None if fresh else db.newest_run(wanted.name, "train")
    if init_from is None:
        return wanted.beginning(None), []
    if last is not None and initial.asked(last) == init_from:
        same = wanted.beginning(last.spec["init_from"])
        if last.state != "finished" or not changes_of(last, same.going_on_from(last)):
            return same, []
    record, notes = initial.resolve(stores, init_from)
    return wanted.beginning(record), notes


def _decide(
    tx: Writer, wanted: Wanted, fresh: bool, on_change: OnChange, stores: Stores
) -> tuple[Run, str, list[str], bool]:
    """(run, why, what changed, nothing to do)."""
    last = None if fresh else tx.newest_run(wanted.name, "train")
    if last is None:
        why = "fresh=True" if fresh else f'there is no run named "{wanted.name}" yet'
        return create(tx, wanted, stores), why, [], False
    wanted = wanted.going_on_from(last)
    changed = changes_of(last, wanted)
    if last.state == "finished":
        if not changed:
            return last, "it finished, and code and config are unchanged", [], True
        return create(tx, wanted, stores), "it finished, and then changed", changed, False
    if changed and on_change == "refuse":
        raise Refused(
            f'run "{last.name}" is unfinished and its code or config changed: '
            + "; ".join(changed[:5]),
            'Undo the change, or pass on_change="continue" or "fork".',
            changed=changed,
        )
    if changed and on_change == "fork":
        return create(tx, wanted, stores), "it is unfinished, and changed", changed, False
    return go_on(tx, last, wanted, changed, stores)


def changes_of(last: Run, wanted: Wanted) -> list[str]:
    """What of code and config differs from a run, a line each."""
    lines = difference(last.spec.get("parts", {}), wanted.spec["parts"])
    return lines + configuring.changes(compared(last.spec), wanted.compared())


def create(tx: Writer, wanted: Wanted, stores: Stores) -> Run:
    """A new run's row, with what it refers to."""
    run = Run(
        id=ids.new_id("run"),
        name=wanted.name,
        work="train",
        state="pending",
        spec=wanted.spec,
        code=wanted.code.digest,
        source=wanted.source,
        detached=wanted.detached,
        created_at=tx.now(),
    )
    run = replace(run, spec=_with_controller(run, stores))
    tx.add_run(run, wanted.source_refs)
    tx.event(f"run/{run.id}", "run.created", {"name": run.name, "code": run.code})
    return run


def go_on(
    tx: Writer, last: Run, wanted: Wanted, changed: list[str], stores: Stores
) -> tuple[Run, str, list[str], bool]:
    """The row of an unfinished run as its next attempt wants it; as `_decide` gives. Raises
    LeaseHeld."""
    owner = control.owner(tx.find_lease(f"run/{last.id}"), tx.now())
    if owner is not None:
        if last.detached and not changed:
            return last, f"it goes on already (pid {owner.pid}); following it", [], False
        raise LeaseHeld(
            f'run "{last.name}" is going on already (pid {owner.pid} on {owner.host})',
            f"Wait, or stop it: penstock runs stop {last.name}",
            pid=owner.pid,
            host=owner.host,
            run=last.id,
        )
    began = initial.carried(last, wanted.spec["init_from"], begun=bool(tx.checkpoints(last.id)))
    spec = _with_controller(replace(last, spec={**wanted.spec, **began}), stores)
    run = tx.change_run(
        last.id,
        state="pending",
        spec=spec,
        code=wanted.code.digest,
        source=wanted.source,
        detached=wanted.detached,
        error=None,
        ended_at=None,
    )
    tx.event(f"run/{run.id}", "run.continued", {"changed": changed, "was": last.state})
    tx.refer(f"run/{run.id}", wanted.source_refs)
    was = last.state if last.state in ENDED else "interrupted"
    return run, f"it is unfinished ({was} at step {last.step})", changed, False


def _with_controller(run: Run, stores: Stores) -> dict[str, Any]:
    """The spec with the command that starts this run's controller; none where it
    runs inside a script."""
    if run.spec["workers"] == 0 or run.spec["launcher"]:
        return {**run.spec, "controller": None}
    return {**run.spec, "controller": controller.command(str(stores.layout.root), run.id)}
