"""Deployments: what is wanted under which name. Their keeper brings it about."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from penstock.records import Deployment
from penstock.server.routes.asked import AskedHome

router = APIRouter(tags=["deployments"])

EndpointName = Annotated[str, Path(description="the endpoint's name", max_length=200)]


class Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="NAME[@VERSION-OR-ALIAS], resolved now", max_length=300)


@router.get("/deployments")
def list_deployments(home: AskedHome) -> list[Deployment]:
    """In the order of their names."""
    return home.deployments()


@router.get("/deployments/{name:path}")
def show_deployment(home: AskedHome, name: EndpointName) -> Deployment:
    """What is wanted and what is."""
    return home.deployment(name)


@router.put("/deployments/{name:path}")
def deploy(home: AskedHome, name: EndpointName, wish: Wish) -> Deployment:
    """Want it to serve a model; the same wish again changes nothing."""
    return home.deploy(name, wish.model)


@router.delete("/deployments/{name:path}")
def stop(home: AskedHome, name: EndpointName) -> Deployment:
    """Want it down; requests in flight are answered. The row stays, twice is no error."""
    return home.stop_deployment(name)
