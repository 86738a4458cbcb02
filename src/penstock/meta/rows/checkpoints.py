"""Checkpoints of a run, and which of them are kept for a metric."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import delete, select

from penstock.base.errors import NotFound
from penstock.meta.rows.session import Session
from penstock.meta.tables import bests, checkpoints
from penstock.records import Checkpoint, to_data

_OWN = tuple(checkpoints.c)


class CheckpointReader(Session):
    def checkpoints(self, run_id: str) -> list[Checkpoint]:
        best: dict[int, list[str]] = {}
        for row in self.execute(select(bests).where(bests.c.run_id == run_id)):
            best.setdefault(row.step, []).append(row.metric)
        query = select(*_OWN).where(checkpoints.c.run_id == run_id)
        order = query.order_by(checkpoints.c.step.desc(), checkpoints.c.generation.desc())
        found: dict[int, Checkpoint] = {}
        for row in self.execute(order):  # of one step the highest generation comes first
            if row.step not in found:
                found[row.step] = _checkpoint(row._mapping, best.get(row.step, []))
        return list(found.values())


class CheckpointWriter(CheckpointReader):
    def add_checkpoint(self, checkpoint: Checkpoint, refs: Iterable[str]) -> None:
        row = to_data(checkpoint)
        row.pop("best")
        row["created_at"] = row["created_at"] or self.now()
        if self.insert_new(checkpoints, [row]):
            owner = _owner(checkpoint.run_id, checkpoint.step, checkpoint.generation)
            self.keep(owner, [checkpoint.digest, *refs])
        if checkpoint.best is not None:
            self.mark_best(checkpoint.run_id, checkpoint.step, checkpoint.best)

    def mark_best(self, run_id: str, step: int, metric: str) -> None:
        query = select(checkpoints.c.step).where(checkpoints.c.run_id == run_id)
        if self.first(query.where(checkpoints.c.step == step)) is None:
            raise NotFound(
                f"run {run_id} has no checkpoint of step {step}",
                "Mark a step that was committed and not dropped since.",
                run=run_id,
                step=step,
            )
        where = (bests.c.run_id == run_id, bests.c.metric == metric)
        self.execute(delete(bests).where(*where))
        self.insert_new(bests, [{"run_id": run_id, "metric": metric, "step": step}])

    def drop_checkpoint(self, run_id: str, step: int) -> None:
        where = (checkpoints.c.run_id == run_id, checkpoints.c.step == step)
        for row in self.execute(select(checkpoints.c.generation).where(*where)).all():
            self.let_go(_owner(run_id, step, row.generation))
        self.execute(delete(checkpoints).where(*where))
        self.execute(delete(bests).where(bests.c.run_id == run_id, bests.c.step == step))


def _owner(run_id: str, step: int, generation: int) -> str:
    return f"checkpoint/{run_id}/{step}/{generation}"


def _checkpoint(row: Any, metrics: list[str]) -> Checkpoint:
    numbers = {name: float(value) for name, value in row["metrics"].items()}
    return Checkpoint(**{**row, "metrics": numbers}, best=",".join(sorted(metrics)) or None)
