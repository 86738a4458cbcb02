"""Who may ask: the door's keeper, in front of every route.

On loopback without a token any process of this machine may ask, but no web page may: a page can
make the browser call 127.0.0.1, under a name of its own that it lets point here (DNS rebinding),
or straight away as a form would (cross-site request). So the Host header must name this machine,
and an Origin, when there is one, must be the server itself.

With a token, every route but /health wants `Authorization: Bearer TOKEN`.
"""

from __future__ import annotations

import ipaddress
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.server.tokens import matches

LARGEST_BODY = 1 << 20  # bytes; requests are small JSON objects
_OPEN = "/health"


class Guard:
    """ASGI middleware.

    token     hash of the token, None: none is asked for
    loopback  the server listens on loopback only, so Host must be a name of loopback
    """

    def __init__(self, app: ASGIApp, token: str | None, loopback: bool) -> None:
        self._app = app
        self._token = token
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["path"], headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self._app(scope, _bounded(receive), send)

    def _refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if self._loopback and not is_loopback(_name(host)):
            return _refuse(
                HTTPStatus.MISDIRECTED_REQUEST,
                f'the host "{host}" is not this server',
                "Ask 127.0.0.1 or localhost.",
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return _refuse(
                HTTPStatus.FORBIDDEN,
                "requests of other web pages are not answered",
                "Ask from a program, or from a page of this server.",
            )
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            return _refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "the body is too large",
                f"Send at most {LARGEST_BODY} bytes.",
            )
        if self._token is not None and path != _OPEN and not self._knows(headers):
            return _refuse(
                HTTPStatus.UNAUTHORIZED,
                "a token is needed, and the right one was not sent",
                "Send `Authorization: Bearer TOKEN`; `penstock up --new-token` makes one.",
            )
        return None

    def _knows(self, headers: Headers) -> bool:
        kind, _, token = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and matches(token.strip(), self._token or "")


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """The host without its port: "[::1]:80" -> "::1". Empty when it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _bounded(receive: Receive) -> Receive:
    """A chunked body says no length: end it when it grows too large."""
    seen = 0

    async def _receive() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return message if seen <= LARGEST_BODY else {"type": "http.disconnect"}

    return _receive


def _refuse(status: HTTPStatus, what: str, fix: str) -> JSONResponse:
    code = {HTTPStatus.UNAUTHORIZED: "token-needed"}.get(status, "bad-input")
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None
    body = {"code": code, "what": what, "fix": fix, "facts": {"status": status.value}}
    return JSONResponse(body, status, headers)
