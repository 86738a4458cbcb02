"""Dataset versions: look at them, compare them, check them, label them.

Nothing here names a path of the server's disk: files are written where the command line runs;
over HTTP rows come as a stream of Arrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from penstock.home.views import VersionDetail, VersionView
from penstock.records import Alias
from penstock.records.looks import (
    Ancestor,
    ColumnSummary,
    DataDiff,
    DataRows,
    DataVerdict,
    Retired,
)
from penstock.server.routes.asked import AskedHome, Limit, Name, Reference

router = APIRouter(tags=["data"])

Text = Annotated[str, Field(max_length=300)]
Columns = Annotated[list[str] | None, Query(description="only these; may be given again")]
Most = Annotated[int, Query(ge=1, le=1000, description="how many rows")]
First = Annotated[int, Query(ge=0, lt=1 << 62, description="number of the first row")]


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reference: Text = Field(description="NAME[@VERSION-OR-ALIAS]")


class AliasMove(Asked):
    alias: str = Field(description='such as "stable"', max_length=100)
    expect: int | None = Field(
        None, ge=0, lt=1 << 31, description="the version it points at now; 0: it is not there"
    )


class Labels(Asked):
    add: list[str] = Field([], max_length=100)
    remove: list[str] = Field([], max_length=100)


class Retention(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Text | None = Field(None, description="only of this name")
    keep: int | None = Field(
        None, ge=0, lt=1 << 31, description="default: the setting keep_versions"
    )
    apply: bool = Field(False, description="false: only say what would be dropped")


@router.get("/data")
def list_datasets(home: AskedHome, name: Name = None, limit: Limit = 100) -> list[VersionView]:
    """Newest first."""
    return home.datasets(name=name, limit=limit)


@router.get("/data/{reference:path}")
def show_dataset(home: AskedHome, reference: Reference) -> VersionDetail:
    """A version with its aliases, tags and manifest."""
    return home.dataset(reference)


@router.get("/data-rows/{reference:path}")
def rows(
    home: AskedHome,
    reference: Reference,
    limit: Most = 10,
    start: First = 0,
    column: Columns = None,
) -> DataRows:
    """Some rows of a split, the first one where none is said; large values summarised."""
    return home.data_rows(reference, limit, start, column)


@router.get(
    "/data-stream/{reference:path}",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/vnd.apache.arrow.stream": {}}}},
)
def stream(
    home: AskedHome,
    reference: Reference,
    column: Columns = None,
    start: First = 0,
    stop: Annotated[int | None, Query(ge=0, lt=1 << 62, description="row behind the last")] = None,
) -> StreamingResponse:
    """Rows of a split as an Arrow IPC stream; damage on the way cuts it off without HTTP's end."""
    parts = home.data_stream(reference, column, start, stop)
    first = next(parts)  # an error must be the answer, not a torn stream
    return StreamingResponse(
        _chained(first, parts), media_type="application/vnd.apache.arrow.stream"
    )


@router.get("/data-statistics/{reference:path}")
def statistics(home: AskedHome, reference: Reference) -> list[ColumnSummary]:
    """Every column over the whole version, with a histogram where there is one."""
    return home.data_statistics(reference)


@router.get("/data-lineage/{reference:path}")
def lineage(home: AskedHome, reference: Reference) -> Ancestor:
    """What a version was made from: datasets, functions, runs and files, as a tree."""
    return home.data_lineage(reference)


@router.get("/data-diff")
def diff(
    home: AskedHome,
    old: Annotated[str, Query(max_length=300)],
    new: Annotated[str | None, Query(max_length=300, description="default: the newest")] = None,
) -> DataDiff:
    """Rows added, removed and changed by key; columns; drift of the values."""
    return home.diff_data(old, new)


@router.post("/data-verifications")
def verify(home: AskedHome, asked: Asked) -> DataVerdict:
    """Read every byte of a version and compare it with its hash."""
    return home.verify_data(asked.reference)


@router.post("/data-aliases")
def move_alias(home: AskedHome, move: AliasMove) -> Alias:
    """Point an alias at a version, by compare-and-swap."""
    return home.move_data_alias(move.reference, move.alias, move.expect)


@router.post("/data-tags")
def tag(home: AskedHome, labels: Labels) -> list[str]:
    """Give and take labels; answers those that the version has then."""
    return home.tag_data(labels.reference, labels.add, labels.remove)


@router.post("/data-retention")
def retire(home: AskedHome, asked: Retention) -> Retired:
    """Drop older versions that nothing needs, or say which they are."""
    return home.retire_data(asked.name, asked.keep, asked.apply)


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[Any]:
    yield first
    yield from rest
