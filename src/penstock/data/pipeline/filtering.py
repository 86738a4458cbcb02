"""Filters: which rows of a source there are for a loader.

Every sample is asked about once, before the first batch; the rows that stay are then permuted,
cut into batches and counted like those of any source. So every batch is full, every rank makes
the same number of steps, and a run goes on exactly, at any world size. It costs one pass over the
data: the result is kept in the node's cache, by the function's code and the data's identity, and
is made by one process of the node while the others wait.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput, CannotTravel
from penstock.data.order import Rows
from penstock.data.pipeline.collate import samples_of
from penstock.data.pipeline.work import failed
from penstock.data.samples.index import kept, numbers
from penstock.jobs import source as code

FORMAT = "penstock-filter-1"
_BLOCK = 1 << 12  # samples gathered at once


def chosen_rows(
    source: Any,
    function: Callable[[Any], Any],
    folder: Path | None,
    key: str = "",
    among: Rows | None = None,
) -> Rows:
    """Rows for which the function is true: int64, rising. Raises UserCodeFailed, BadInput.

    folder  where the rows are kept; None, or a function whose code cannot be followed: nowhere
    key     the column that names a sample, for messages
    among   the rows that are asked about; None: all
    """
    try:
        identity = code.identity(function).digest if folder is not None else ""
    except CannotTravel:
        folder, identity = None, ""

    def build() -> pa.Table:
        return pa.table({"row": _asked(source, function, key, among)})

    content = [] if among is None else [content_of(among)]
    found = numbers(kept(folder, [FORMAT, source.identity, identity, *content], build), "row")
    if not len(found):
        total = len(source) if among is None else len(among)
        raise BadInput(
            f"the filter leaves none of the {total} samples", "Is it the right way round?"
        )
    return found


def content_of(rows: Rows) -> str:
    """What tells choices of rows apart."""
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


def _asked(source: Any, function: Callable[[Any], Any], key: str, among: Rows | None) -> Rows:
    found: list[int] = []
    total = len(source) if among is None else len(among)
    for start in range(0, total, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, total), dtype=np.int64)
        rows = rows if among is None else among[rows]
        samples = samples_of(source.gather(rows), 0, len(rows))
        for row, sample in zip(rows.tolist(), samples, strict=True):
            try:
                stays = bool(function(sample))
            except Exception as error:
                raise failed(error, "filter", row, sample.get(key)) from error
            if stays:
                found.append(row)
    return np.array(found, np.int64)
