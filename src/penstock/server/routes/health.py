"""Whether it answers, and whether all is well."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from penstock.home.views import Check
from penstock.server.routes.asked import AskedHome

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: str = "ok"


@router.get("/health")
def health() -> Health:
    """The server answers. Needs no token and tells nothing else."""
    return Health()


@router.get("/api/doctor")
def doctor(home: AskedHome) -> list[Check]:
    """Look at the installation, the settings and the machine. Changes nothing."""
    return home.doctor()
