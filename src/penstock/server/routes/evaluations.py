"""Evaluations and their reports."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from penstock.records import Evaluation
from penstock.server.routes.asked import AskedHome, Limit

router = APIRouter(tags=["evaluations"])


@router.get("/evaluations")
def list_evaluations(
    home: AskedHome,
    model: Annotated[str | None, Query(description="only of this model version")] = None,
    limit: Limit = 100,
) -> list[Evaluation]:
    """Newest first."""
    return home.evaluations(model=model, limit=limit)


@router.get("/evaluations/{evaluation}")
def show_evaluation(
    home: AskedHome, evaluation: Annotated[str, Path(max_length=300)]
) -> dict[str, Any]:
    """The whole report: the record, metrics, slices and gates."""
    return home.evaluation(evaluation)
