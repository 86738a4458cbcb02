"""Model versions, where they come from, and the aliases that point at them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from penstock.home.views import VersionDetail, VersionView
from penstock.records import Alias
from penstock.server.routes.asked import AskedHome, Limit, Name, Reference

router = APIRouter(tags=["models"])


class Promotion(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reference: str = Field(description="the version to promote", max_length=300)
    alias: str = Field(description='such as "production"', max_length=100)
    evaluation: str | None = Field(
        None, description="id of the evaluation that speaks for it; default: its newest"
    )


@router.get("/models")
def list_models(home: AskedHome, name: Name = None, limit: Limit = 100) -> list[VersionView]:
    """Newest first."""
    return home.models(name=name, limit=limit)


@router.post("/promotions")
def promote(home: AskedHome, promotion: Promotion) -> Alias:
    """Move an alias. Refused unless an evaluation of exactly that version passed."""
    return home.promote(promotion.reference, promotion.alias, promotion.evaluation)


@router.get("/lineage/{reference:path}")
def why(home: AskedHome, reference: Reference) -> dict[str, Any]:
    """The chain from an alias to the function that made its data."""
    return home.why(reference)


@router.get("/models/{reference:path}")
def show_model(home: AskedHome, reference: Reference) -> VersionDetail:
    """A version with its aliases and its manifest."""
    return home.model(reference)
