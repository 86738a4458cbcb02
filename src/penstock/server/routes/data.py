"""Dataset versions."""

from __future__ import annotations

from fastapi import APIRouter

from penstock.home.views import VersionDetail, VersionView
from penstock.server.routes.asked import AskedHome, Limit, Name, Reference

router = APIRouter(tags=["data"])


@router.get("/data")
def list_datasets(home: AskedHome, name: Name = None, limit: Limit = 100) -> list[VersionView]:
    """Newest first."""
    return home.datasets(name=name, limit=limit)


@router.get("/data/{reference:path}")
def show_dataset(home: AskedHome, reference: Reference) -> VersionDetail:
    """A version with its aliases and its manifest."""
    return home.dataset(reference)
