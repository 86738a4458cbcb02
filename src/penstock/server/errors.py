"""Every failure as one JSON object: {code, what, fix, facts}, with a status that fits."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from penstock.base.errors import (
    BadInput,
    Conflict,
    DiskFull,
    NotFound,
    PenstockError,
    Refused,
    RunStopped,
    Unavailable,
)
from penstock.base.log import logger

log = logger("server")

# The first that fits; what is not here is a fault of the server's side: 500.
_STATUS: tuple[tuple[type[PenstockError], HTTPStatus], ...] = (
    (BadInput, HTTPStatus.BAD_REQUEST),
    (NotFound, HTTPStatus.NOT_FOUND),
    (Conflict, HTTPStatus.CONFLICT),
    (Refused, HTTPStatus.CONFLICT),
    (RunStopped, HTTPStatus.CONFLICT),
    (DiskFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)


class Problem(BaseModel):
    """What every answer with a status of 400 or more holds."""

    code: str = Field(description="stable; match this, not the text")
    what: str = Field(description="what happened, in one sentence")
    fix: str = Field(description="what to do next")
    facts: dict[str, Any] = Field(description="names, paths and numbers, for machines")


RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "The request cannot be carried out as it is."},
    "5XX": {"model": Problem, "description": "The server's side failed."},
}


def status_of(error: PenstockError) -> HTTPStatus:
    """The HTTP status of an error of the family."""
    for kind, status in _STATUS:
        if isinstance(error, kind):
            return status
    return HTTPStatus.INTERNAL_SERVER_ERROR


def answer(error: PenstockError) -> JSONResponse:
    """The error as a response."""
    # Facts are JSON-able by contract; an error of a user's own making may break it.
    content = {**error.as_dict(), "facts": {k: _plain(v) for k, v in error.facts.items()}}
    return JSONResponse(content, status_of(error))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | bool | None) else str(value)


def install(app: FastAPI) -> None:
    """Make `app` answer every failure this way."""

    @app.exception_handler(PenstockError)
    def _family(request: Request, error: PenstockError) -> JSONResponse:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return answer(BadInput(f"{where}: {first['msg']}", "See /openapi.json.", where=where))

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        body = {
            "code": "not-found" if status == HTTPStatus.NOT_FOUND else "bad-input",
            "what": f"{request.method} {request.url.path}: {status.phrase}",
            "fix": "See /openapi.json for what there is.",
            "facts": {"status": status.value},
        }
        return JSONResponse(body, status, error.headers)

    @app.exception_handler(Exception)
    def _bug(request: Request, error: Exception) -> JSONResponse:
        log.error("a request met a fault of the server", exc_info=error)
        return answer(
            PenstockError("the server met a fault of its own", "Its log has the traceback.")
        )
