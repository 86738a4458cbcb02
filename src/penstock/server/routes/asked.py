"""What every route takes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query, Request

from penstock.home.port import Home


def _home(request: Request) -> Home:
    found: Home = request.app.state.home
    return found


AskedHome = Annotated[Home, Depends(_home)]
Limit = Annotated[int, Query(ge=1, le=1000, description="how many, newest first")]
Name = Annotated[str | None, Query(description="only of this name")]
Reference = Annotated[
    str, Path(description="NAME[@VERSION-OR-ALIAS]; names may hold slashes", max_length=300)
]
