"""Checkpoints of a run, which of them are kept for a metric, and which are pinned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import delete, select

from penstock.base.errors import BadInput, NotFound
from penstock.meta.rows.events import EventWriter
from penstock.meta.rows.session import Session
from penstock.meta.tables import bests, checkpoints, pinned_checkpoints
from penstock.records import Checkpoint, to_data

_OWN = tuple(checkpoints.c)
_LONGEST = 200  # characters of a pin's note


class CheckpointReader(Session):
    def checkpoints(self, run_id: str) -> list[Checkpoint]:
        best: dict[int, list[str]] = {}
        for row in self.execute(select(bests).where(bests.c.run_id == run_id)):
            best.setdefault(row.step, []).append(row.metric)
        pins = select(pinned_checkpoints.c.step, pinned_checkpoints.c.note)
        pinned = dict(
            tuple(row) for row in self.execute(pins.where(pinned_checkpoints.c.run_id == run_id))
        )
        query = select(*_OWN).where(checkpoints.c.run_id == run_id)
        order = query.order_by(checkpoints.c.step.desc(), checkpoints.c.generation.desc())
        found: dict[int, Checkpoint] = {}
        for row in self.execute(order):  # of one step the highest generation comes first
            if row.step not in found:
                marks = best.get(row.step, [])
                found[row.step] = _checkpoint(row._mapping, marks, pinned.get(row.step))
        return list(found.values())


class CheckpointWriter(CheckpointReader, EventWriter):
    def add_checkpoint(self, checkpoint: Checkpoint, refs: Iterable[str]) -> None:
        row = to_data(checkpoint)
        del row["best"], row["pinned"]
        row["created_at"] = row["created_at"] or self.now()
        if self.insert_new(checkpoints, [row]):
            owner = _owner(checkpoint.run_id, checkpoint.step, checkpoint.generation)
            self.keep(owner, [checkpoint.digest, *refs])
        if checkpoint.best is not None:
            self.mark_best(checkpoint.run_id, checkpoint.step, checkpoint.best)

    def mark_best(self, run_id: str, step: int, metric: str) -> None:
        self._must_be_there(run_id, step)
        where = (bests.c.run_id == run_id, bests.c.metric == metric)
        self.execute(delete(bests).where(*where))
        self.insert_new(bests, [{"run_id": run_id, "metric": metric, "step": step}])

    def pin_checkpoint(self, run_id: str, step: int, note: str = "") -> bool:
        self._must_be_there(run_id, step)
        if not (note == "" or note.isprintable()) or len(note) > _LONGEST:
            raise BadInput(
                f"{note!r} cannot be the note of a pin",
                f"A note is one line of at most {_LONGEST} characters.",
                note=note,
            )
        where = _pin(run_id, step)
        known = self.first(select(pinned_checkpoints.c.note).where(*where))
        if known is not None and known[0] == note:
            return False
        self.execute(delete(pinned_checkpoints).where(*where))
        row = {"run_id": run_id, "step": step, "note": note, "pinned_at": self.now()}
        self.insert_new(pinned_checkpoints, [row])
        self.event(f"run/{run_id}", "checkpoint.pinned", {"step": step, "note": note})
        return True

    def unpin_checkpoint(self, run_id: str, step: int) -> bool:
        self._must_be_there(run_id, step)
        gone = self.execute(delete(pinned_checkpoints).where(*_pin(run_id, step))).rowcount > 0
        if gone:
            self.event(f"run/{run_id}", "checkpoint.unpinned", {"step": step})
        return gone

    def drop_checkpoint(self, run_id: str, step: int) -> None:
        where = (checkpoints.c.run_id == run_id, checkpoints.c.step == step)
        for row in self.execute(select(checkpoints.c.generation).where(*where)).all():
            self.let_go(_owner(run_id, step, row.generation))
        self.execute(delete(checkpoints).where(*where))
        self.execute(delete(bests).where(bests.c.run_id == run_id, bests.c.step == step))
        self.execute(delete(pinned_checkpoints).where(*_pin(run_id, step)))

    def _must_be_there(self, run_id: str, step: int) -> None:
        query = select(checkpoints.c.step).where(checkpoints.c.run_id == run_id)
        if self.first(query.where(checkpoints.c.step == step)) is None:
            raise NotFound(
                f"run {run_id} has no checkpoint of step {step}",
                "Mark a step that was committed and not dropped since.",
                run=run_id,
                step=step,
            )


def _pin(run_id: str, step: int) -> tuple[Any, ...]:
    return (pinned_checkpoints.c.run_id == run_id, pinned_checkpoints.c.step == step)


def _owner(run_id: str, step: int, generation: int) -> str:
    return f"checkpoint/{run_id}/{step}/{generation}"


def _checkpoint(row: Any, metrics: list[str], pinned: str | None) -> Checkpoint:
    numbers = {name: float(value) for name, value in row["metrics"].items()}
    best = ",".join(sorted(metrics)) or None
    return Checkpoint(**{**row, "metrics": numbers}, best=best, pinned=pinned)
