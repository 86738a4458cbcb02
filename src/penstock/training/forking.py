"""A run that begins where another one was: its checkpoint, source, data and config, a new name."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from penstock.base import ids
from penstock.base.errors import CannotTravel, Conflict
from penstock.checkpoints import relabelled
from penstock.jobs import control
from penstock.jobs.source import refs
from penstock.jobs.stores import Stores, pinned
from penstock.meta import Reader
from penstock.records import Checkpoint, Run
from penstock.records.references import check_name
from penstock.training import configuring, controller
from penstock.training.origins import Origin, checkpoint_of
from penstock.training.reconfiguring import reconfigured


@dataclass(frozen=True, slots=True)
class Forked:
    """run      the new one
    origin   where it begins
    changed  what its config has else than that of `origin.run`, a line each
    """

    run: Run
    origin: Origin
    changed: list[str]


def fork(
    stores: Stores, origin: str, overrides: Sequence[str] = (), name: str | None = None
) -> Forked:
    """Start a run from a checkpoint of another one, detached.

    origin     RUN (its newest whole checkpoint), RUN@STEP or RUN@best
    overrides  KEY=VALUE of the config
    name       of the new run; default: the other's name with "-fork-1", "-fork-2", …

    All of the state is restored, as at a resume. The checkpoint becomes the new run's own: a
    manifest that names the same blobs, so that nothing that happens to the other run touches it.
    Raises what `checkpoint_of` and `reconfigured` raise, CannotTravel (a function without a file),
    Conflict (the name is taken); nothing was changed then.
    """
    with pinned(stores.meta):
        found = checkpoint_of(stores, origin)
        parent = found.run
        if not parent.source:
            raise CannotTravel(
                f'the function of run "{parent.name}" is in no file: no other process can run it',
                "Define it at the top level of a .py file, and train from there.",
                run=parent.id,
            )
        if not parent.spec.get("travels", ":" in parent.spec["entry"]):
            raise CannotTravel(
                f'run "{parent.name}" is a loop that was attached ({parent.spec["entry"]}), which '
                "no rank of ours can run",
                f"Begin another run with its weights: init_from={origin!r}.",
                run=parent.id,
            )
        if name is not None:
            check_name(name, "run name")
        config = reconfigured(stores, parent, overrides)
        changed = configuring.changes({"config": parent.spec["config"]}, {"config": config})
        run = _new_run(stores, found, config)
        known = refs(run.source, stores.blobs)
        row, needed = _own_checkpoint(stores, found, run.id)
        with stores.meta.write() as tx:
            run = replace(run, name=_free_name(tx, parent, name), created_at=tx.now())
            tx.add_run(run, known)
            tx.add_checkpoint(row, needed)
            for metric in filter(None, (found.checkpoint.best or "").split(",")):
                tx.mark_best(run.id, row.step, metric)
            tx.event(f"run/{run.id}", "run.created", {"name": run.name, "code": run.code})
            body = {**run.spec["forked_from"], "changed": changed, "passed_over": found.notes}
            tx.event(f"run/{run.id}", "run.forked", body)
    control.start_controller(stores, run)
    return Forked(run, found, changed)


def _new_run(stores: Stores, found: Origin, config: dict[str, Any]) -> Run:
    """One of a run with workers=0 has one rank: nobody's script is there to run it in."""
    parent, run_id = found.run, ids.new_id("run")
    spec = {
        **parent.spec,
        "config": config,
        "workers": max(1, int(parent.spec["workers"])),
        "launcher": None,
        "client": None,
        "study": None,  # a fork of a trial is none
        "stopping": None,
        "wanted": None,
        "controller": controller.command(str(stores.layout.root), run_id),
        "forked_from": {
            "run": parent.id,
            "name": parent.name,
            "step": found.checkpoint.step,
        },
    }
    return Run(
        id=run_id,
        name="",
        work="train",
        state="pending",
        spec=spec,
        code=parent.code,
        source=parent.source,
        data=parent.data,
        detached=True,
        step=found.checkpoint.step,
    )


def _own_checkpoint(stores: Stores, found: Origin, run_id: str) -> tuple[Checkpoint, list[str]]:
    """The row, and the blobs it needs: a manifest under the new run's id, and the parts' own."""
    digest = stores.blobs.put(relabelled(stores.blobs, found.checkpoint.digest, run_id))
    row = replace(found.checkpoint, run_id=run_id, digest=digest, generation=0, best=None)
    return replace(row, created_at=0.0), [digest, *found.manifest.blobs]


def _free_name(db: Reader, parent: Run, name: str | None) -> str:
    """The given one, when no training has it, or the next of the parent's own. Raises Conflict."""
    if name is not None:
        if (known := db.newest_run(name, "train")) is not None:
            raise Conflict(
                f'there is a run "{name}" already ({known.id})',
                "Give the fork another name: --name.",
                run=known.id,
            )
        return name
    numbers = itertools.count(1)
    names = (f"{parent.name}-fork-{number}" for number in numbers)
    return next(each for each in names if db.newest_run(each, "train") is None)
