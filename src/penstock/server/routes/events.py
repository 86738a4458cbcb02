"""The story of a home: a page of it, or live as server-sent events.

A stream's ids are the cursors of `events`, which are in commit order and never late: a client
that comes back with Last-Event-ID (browsers do by themselves) misses none and sees none twice.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from time import monotonic
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse

from penstock.base.errors import PenstockError
from penstock.home.port import Home
from penstock.records import Event, to_data
from penstock.server.routes.asked import AskedHome

router = APIRouter(tags=["events"])

_PAGE = 500  # events read at once
_WAIT = 1.0  # seconds a thread waits in the store; a stream sees the server's end that late
_SILENCE = 15.0  # seconds after which a comment is sent, so that proxies keep the connection
_STREAMS = 64  # at once: each holds a thread while it waits
_threads = anyio.CapacityLimiter(_STREAMS)

Subject = Annotated[
    str | None, Query(description='such as "run/ID"; "run/*" means all that begin so')
]
_LARGEST = 2**63 - 1


@router.get("/events")
def list_events(
    home: AskedHome,
    after: Annotated[int, Query(ge=0, le=_LARGEST, description="cursor")] = 0,
    subject: Subject = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[Event]:
    """In commit order, after a cursor."""
    return home.events(after=after, subject=subject, limit=limit)


@router.get(
    "/events/stream",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
def stream_events(
    request: Request,
    home: AskedHome,
    after: Annotated[
        int | None, Query(ge=0, le=_LARGEST, description="cursor; default: from now on")
    ] = None,
    subject: Subject = None,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=_LARGEST, description="wins over `after`")
    ] = None,
) -> StreamingResponse:
    """Server-sent events: `id` the cursor, `event` the kind, `data` the event as JSON."""
    cursor = last_event_id if last_event_id is not None else after
    if cursor is None:
        cursor = home.last_event()
    return StreamingResponse(
        _stream(request, home, cursor, subject),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _stream(
    request: Request, home: Home, cursor: int, subject: str | None
) -> AsyncIterator[str]:
    """Ends when the server ends; a client that goes away cancels it."""
    closing = request.app.state.closing
    spoke = monotonic()
    yield ": connected\n\n"  # headers go out now, not with the first event
    while not closing.is_set():
        try:
            found = await anyio.to_thread.run_sync(
                partial(home.events, cursor, subject, _PAGE, _WAIT),
                limiter=_threads,
                abandon_on_cancel=True,
            )
        except PenstockError as error:  # the client comes back with the last id it has
            yield f"event: error\ndata: {json.dumps(error.as_dict(), default=str)}\n\n"
            return
        for event in found:
            cursor = event.seq
            data = json.dumps(to_data(event), ensure_ascii=False)
            yield f"id: {event.seq}\nevent: {event.kind}\ndata: {data}\n\n"
        if found:
            spoke = monotonic()
        elif monotonic() - spoke > _SILENCE:
            spoke = monotonic()
            yield ": still here\n\n"
