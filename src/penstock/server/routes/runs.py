"""Runs: look at them, stop them, let them go on.

A run is named by id, unique id prefix, or name (the newest of that name). A name with a slash
works for `GET /runs/{run}`; what is below a run wants its id.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from penstock.home.views import CheckpointVerdict, ClaimView, Process, RunDetail, RunView
from penstock.monitoring import Account, Watched
from penstock.server.routes.asked import AskedHome, Limit, Name

router = APIRouter(tags=["runs"])

Run = Annotated[str, Path(description="id, unique id prefix, or name", max_length=300)]


@router.get("/runs")
def list_runs(
    home: AskedHome,
    limit: Limit = 50,
    name: Name = None,
    state: Annotated[list[str] | None, Query(description="only in these states")] = None,
) -> list[RunView]:
    """Newest first."""
    return home.runs(limit=limit, name=name, states=state)


@router.get("/runs/{run}/metrics")
def metrics(
    home: AskedHome, run: Run, name: Annotated[list[str] | None, Query()] = None
) -> dict[str, list[tuple[int, float | None]]]:
    """Scalars as (step, value), means over ranks. A value that JSON cannot say is null."""
    found = home.metrics(run, name or ())
    return {key: [(step, _finite(value)) for step, value in line] for key, line in found.items()}


@router.get("/runs/{run}/account")
def account(home: AskedHome, run: Run) -> Account:
    """Where the seconds of a training went, up to now; they add up to wall time."""
    return home.account(run)


@router.get("/runs/{run}/watch")
def watch(home: AskedHome, run: Run) -> Watched:
    """A training at this moment: how far, how fast, each rank, newest metrics, and its account."""
    found = home.watch(run)
    series = {
        name: [(step, value) for step, value in points if _finite(value) is not None]
        for name, points in found.live.series.items()
    }
    return replace(found, live=replace(found.live, series=series))


@router.get(
    "/runs/{run}/logs",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/plain": {}}}},
)
def logs(
    home: AskedHome, run: Run, rank: Annotated[int | None, Query(ge=0)] = None
) -> StreamingResponse:
    """The log as it is now, one line after another; of one rank, or of all with its name."""
    found = home.logs(run, rank=rank)
    first = next(found, None)  # an error must be the answer, not a torn stream
    return StreamingResponse(_lines(first, found), media_type="text/plain; charset=utf-8")


@router.get("/queue")
def queue(home: AskedHome) -> list[ClaimView]:
    """Runs that hold devices, then those that wait for some, in order of arrival."""
    return home.queue()


@router.get("/runs/{run}/processes")
def processes(home: AskedHome, run: Run) -> list[Process]:
    """Live processes of the run."""
    return home.pids(run)


@router.post("/runs/{run}/stop")
def stop(home: AskedHome, run: Run) -> RunView:
    """Ask for a clean stop: checkpoint, then end. Twice is no error."""
    return home.stop_run(run)


@router.post("/runs/{run}/resize")
def resize(home: AskedHome, run: Run, workers: int) -> RunView:
    """Ask for another number of ranks, of those that the run may have."""
    return home.resize_run(run, workers)


@router.post("/runs/{run}/resume")
def resume(home: AskedHome, run: Run) -> RunView:
    """Go on, detached, with a run that stopped, failed or was interrupted."""
    return home.resume_run(run)


@router.post("/runs/{run}/verify")
def verify(home: AskedHome, run: Run) -> list[CheckpointVerdict]:
    """Read every checkpoint and compare it with its hashes; newest first."""
    return home.verify_run(run)


@router.get("/runs/{run:path}")
def show_run(home: AskedHome, run: Run) -> RunDetail:
    """One run with its attempts, checkpoints and last metrics."""
    return home.run(run)


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _lines(first: str | None, rest: Iterator[str]) -> Iterator[str]:
    if first is not None:
        yield first + "\n"
    for line in rest:
        yield line + "\n"
