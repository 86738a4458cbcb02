"""Finished evaluations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sqlalchemy import select

from penstock.base.errors import Conflict, NotFound
from penstock.base.nearest import did_you_mean
from penstock.meta.rows.events import EventReader, EventWriter
from penstock.meta.rows.session import columns
from penstock.meta.tables import evaluations
from penstock.records import Evaluation, to_data


class EvaluationReader(EventReader):
    def find_evaluation(self, key: str) -> Evaluation | None:
        query = columns(evaluations, Evaluation).where(evaluations.c.key == key)
        return self.one(Evaluation, query)

    def get_evaluation(self, evaluation_id: str) -> Evaluation:
        query = columns(evaluations, Evaluation).where(evaluations.c.id == evaluation_id)
        if (found := self.one(Evaluation, query)) is not None:
            return found
        known = self.texts(select(evaluations.c.id).order_by(evaluations.c.seq.desc()).limit(100))
        raise NotFound(
            f'there is no evaluation "{evaluation_id}"',
            did_you_mean(evaluation_id, known),
            evaluation=evaluation_id,
        )

    def evaluations(self, model: str | None = None, limit: int = 100) -> list[Evaluation]:
        query = columns(evaluations, Evaluation)
        if model is not None:
            query = query.where(evaluations.c.model == model)
        return self.all(Evaluation, query.order_by(evaluations.c.seq.desc()).limit(limit))


class EvaluationWriter(EvaluationReader, EventWriter):
    def add_evaluation(self, evaluation: Evaluation, refs: Iterable[str]) -> Evaluation:
        stamped = replace(evaluation, created_at=evaluation.created_at or self.now())
        if not self.insert_new(evaluations, [to_data(stamped)]):
            if (first := self.find_evaluation(evaluation.key)) is not None:
                return first
            raise Conflict(
                f"evaluation {evaluation.id} exists already with another key",
                "Give the evaluation a new id.",
                evaluation=evaluation.id,
            )
        self.keep(f"evaluation/{stamped.id}", [stamped.digest, *refs], stamped.summary)
        body = {"suite": stamped.suite, "model": stamped.model, "passed": stamped.passed}
        self.event(f"evaluation/{stamped.id}", "evaluation.added", body)
        return stamped
