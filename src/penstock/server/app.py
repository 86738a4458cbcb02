"""The HTTP API of a home: thin routes, one file per room."""

from __future__ import annotations

import threading
from importlib.metadata import version

from fastapi import FastAPI

from penstock.home.port import Home
from penstock.server import errors
from penstock.server.guard import Guard
from penstock.server.routes import data, deployments, evaluations, events, health, models, runs


def create_app(
    home: Home,
    *,
    token: str | None = None,
    loopback: bool = True,
    closing: threading.Event | None = None,
) -> FastAPI:
    """The ASGI application; it owns nothing, and `home` stays the caller's to close.

    token     hash of the token that is asked for
    loopback  it is reached over loopback only (see `guard`)
    closing   set when the server ends: live streams end with it
    """
    app = FastAPI(
        title="Penstock",
        version=version("penstock"),
        description="Runs, data, models, evaluations and deployments of one home.",
        responses=errors.RESPONSES,
        docs_url=None,  # both pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.home = home
    app.state.closing = closing or threading.Event()
    errors.install(app)
    app.add_middleware(Guard, token=token, loopback=loopback)
    app.include_router(health.router)
    for room in (runs, data, models, evaluations, deployments, events):
        app.include_router(room.router, prefix="/api")
    return app
