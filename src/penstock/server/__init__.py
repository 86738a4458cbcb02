"""The door for programs: `penstock up`, an HTTP API over a home, with live events."""

from __future__ import annotations

from typing import Any

__all__ = ["create_app", "serve"]


def __getattr__(name: str) -> Any:
    # FastAPI takes 400 ms to import: whoever only imports the package does not pay for it.
    if name == "serve":
        from penstock.server.up import serve

        return serve
    if name == "create_app":
        from penstock.server.app import create_app

        return create_app
    raise AttributeError(name)
