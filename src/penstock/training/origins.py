"""Where a run may begin: a checkpoint of another run, named as RUN, RUN@STEP or RUN@best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.base.errors import BadInput, Damaged, NotFound
from penstock.base.nearest import did_you_mean
from penstock.checkpoints import Damage, Manifest, newest_whole
from penstock.records import Checkpoint, Kind, Reference, Run

if TYPE_CHECKING:
    from penstock.jobs.stores import Stores
    from penstock.meta import Reader

_SHOWN = 12
_ALL = 1 << 31


@dataclass(frozen=True, slots=True)
class Origin:
    """A whole checkpoint.

    damages  of newer ones that were passed over; only where no step was named
    """

    run: Run
    checkpoint: Checkpoint
    manifest: Manifest
    damages: list[Damage]

    @property
    def text(self) -> str:
        """ "base@2000"."""
        return f"{self.run.name}@{self.checkpoint.step}"

    @property
    def notes(self) -> list[str]:
        """What is to be said of it, a line each."""
        if not self.damages:
            return []
        return [*(str(each) for each in self.damages), f"taking {self.text}, the newest whole one"]


def checkpoint_of(stores: Stores, text: str, also: Kind | None = None) -> Origin:
    """The checkpoint that `text` names, all of it read and verified.

    also  kind of versions whose names are offered too where there is no such run

    Without a step: the newest whole one, damaged ones passed over, as a resume does.
    Raises NotFound (no such run, the nearest is offered; no such step, those there are are told),
    Damaged (the named one; the next older is offered), BadInput (no training, no reference),
    NewerSchema, Unavailable.
    """
    with stores.meta.read() as db:
        run, rows, row = row_of(db, text, also)
    return _newest(stores, run, rows) if row is None else _named(stores, run, rows, row)


def row_of(
    db: Reader, text: str, also: Kind | None = None
) -> tuple[Run, list[Checkpoint], Checkpoint | None]:
    """The run that `text` names, its checkpoints, newest first, at least one, and the one that is
    meant: None without a step. No bytes are read. Raises NotFound, BadInput."""
    wanted = Reference.parse(text)
    if wanted.split is not None:
        raise BadInput(f'"{text}" names a split, and a run has none', "Write RUN or RUN@STEP.")
    run = _training(db, wanted.name, also)
    rows = db.checkpoints(run.id)
    if not rows:
        raise NotFound(
            f'run "{run.name}" ({run.id}) has no checkpoint yet',
            f"Wait for its first one: penstock runs show {run.name}",
            run=run.id,
        )
    named = wanted.version is not None or wanted.alias is not None
    return run, rows, _pick(run, rows, wanted) if named else None


def _training(db: Reader, name: str, also: Kind | None) -> Run:
    """By name, id, or start of an id."""
    try:
        run = db.newest_run(name, "train") or db.get_run(name)
    except NotFound as error:
        if also is None:
            raise
        known = [*db.names(also), *(run.name for run in db.runs(limit=_ALL) if run.work == "train")]
        raise NotFound(
            f'there is no run and no {also} "{name}"', did_you_mean(name, set(known)), **error.facts
        ) from None
    if run.work != "train":
        raise BadInput(
            f'run "{run.name}" is no training and has no checkpoints',
            "Name a training.",
            run=run.id,
        )
    return run


def _pick(run: Run, rows: Sequence[Checkpoint], wanted: Reference) -> Checkpoint:
    steps = ", ".join(str(row.step) for row in rows[:_SHOWN])
    there = f"There are those of steps {steps}{', …' if len(rows) > _SHOWN else ''}."
    facts = {"run": run.id, "steps": [row.step for row in rows]}
    if wanted.version is not None:
        for row in rows:
            if row.step == wanted.version:
                return row
        raise NotFound(
            f'run "{run.name}" has no checkpoint of step {wanted.version}', there, **facts
        )
    if wanted.alias != "best":
        raise BadInput(
            f'"@{wanted.alias}" says no checkpoint', "Write RUN, RUN@STEP or RUN@best.", **facts
        )
    best = [row for row in rows if row.best is not None]
    if not best:
        raise NotFound(
            f'no checkpoint of run "{run.name}" is marked best: run.keep_best does it',
            there,
            **facts,
        )
    if len(best) > 1:
        each = ", ".join(f"{run.name}@{row.step} ({row.best})" for row in best)
        raise BadInput(
            f'run "{run.name}" has several checkpoints marked best', f"Name one: {each}.", **facts
        )
    return best[0]


def _newest(stores: Stores, run: Run, rows: Sequence[Checkpoint]) -> Origin:
    found = newest_whole(rows, stores.blobs)
    if found.checkpoint is None or found.manifest is None:
        raise Damaged(
            f'no checkpoint of run "{run.name}" is whole: {found.damages[0]}',
            f"See what is damaged: penstock runs verify {run.name}",
            run=run.id,
        )
    return Origin(run, found.checkpoint, found.manifest, found.damages)


def _named(stores: Stores, run: Run, rows: Sequence[Checkpoint], row: Checkpoint) -> Origin:
    """Whoever names a step means it: another one is offered, never taken."""
    found = newest_whole([row], stores.blobs)
    if found.checkpoint is not None and found.manifest is not None:
        return Origin(run, found.checkpoint, found.manifest, [])
    older = newest_whole([each for each in rows if each.step < row.step], stores.blobs).checkpoint
    if older is None:
        fix = f"There is no older whole one; see: penstock runs verify {run.name}"
    else:
        fix = f"The next older one is whole: {run.name}@{older.step}"
    raise Damaged(
        f'checkpoint {row.step} of run "{run.name}" is damaged: {found.damages[0]}',
        fix,
        run=run.id,
        step=row.step,
        older=None if older is None else older.step,
    )
