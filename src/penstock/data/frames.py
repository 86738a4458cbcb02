"""Bridges: a dataset as NumPy, pandas, polars, DuckDB and torch have it.

All but NumPy's are optional: `pip install 'penstock[frames]'`. Most of them also take a `Dataset`
as it is, because it is a stream of Arrow; what is added here is that tensors keep their shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput, MissingExtra
from penstock.data.columns import Column, Values, fixed_values, one_chunk, values_of

if TYPE_CHECKING:
    from penstock.base.layout import Layout
    from penstock.blobs import Blobs
    from penstock.data.dataset import Dataset
    from penstock.data.order import Rows
    from penstock.data.source import Source


def to_numpy(data: Dataset, store: str = "") -> dict[str, Values]:
    """Column -> array [rows, *shape], or a list: of what has no fixed size, and of whole numbers
    with gaps. A missing float is NaN.

    store  URL of the blob store that references of the form sha256:… read from
    """
    table = data.to_arrow()
    return {each.name: _numpy(table[each.name], each, store) for each in data.columns}


def _numpy(found: pa.ChunkedArray, column: Column, store: str) -> Values:
    if column.fixed and (column.dtype.startswith("float") or not found.null_count):
        parts = [fixed_values(chunk, column) for chunk in found.chunks if len(chunk)]
        if not parts:
            return np.empty((0, *column.shape), column.dtype)
        return np.concatenate(parts)  # always a copy: the caller may write to it
    return values_of(one_chunk(found), column, store)


def to_pandas(data: Dataset) -> Any:
    """A frame with Arrow's types where pandas has them not; a tensor is an array per row."""
    _needed("pandas", data)
    table = data.to_arrow()
    tensors = [each for each in data.columns if each.kind == "tensor"]
    frame = table.drop_columns([each.name for each in tensors]).to_pandas()
    for column in tensors:
        rows = np.empty(len(data), object)
        rows[:] = list(_numpy(table[column.name], column, ""))
        frame[column.name] = rows
    return frame[[each.name for each in data.columns]]


def to_polars(data: Dataset) -> Any:
    """A frame; a tensor column is `pl.Array` of its shape."""
    polars = _needed("polars", data)
    table = data.to_arrow()
    arrays = [_plain(table[each.name], each) for each in data.columns]
    frame = polars.from_arrow(pa.table(arrays, names=[each.name for each in data.columns]))
    shaped = [
        polars.col(each.name).reshape((-1, *each.shape))
        for each in data.columns
        if len(each.shape) > 1
    ]
    return frame.with_columns(shaped) if shaped and len(data) else frame


def _plain(found: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    if column.kind != "tensor":
        return found
    return pa.chunked_array([each.storage for each in found.chunks], found.type.storage_type)


def to_duckdb(data: Dataset, connection: Any = None) -> Any:
    """A relation over the stream. DuckDB asks for a new one each time it runs."""
    duckdb = _needed("duckdb", data)
    return (duckdb if connection is None else connection).from_arrow(data)


def to_torch(
    data: Dataset, blobs: Blobs, layout: Layout | None, batch_size: int | None, **options: Any
) -> Any:
    """A map-style torch Dataset over the same rows, or a DataLoader of it; see `torchdata.py`."""
    if layout is None:
        raise BadInput(
            f"{data.reference} was opened without a home, where shards could be mapped",
            "Open it by ps.open.",
        )
    _needed("torch", data)
    from penstock.data.source import ShardSource
    from penstock.data.torchdata import dataloader_of
    from penstock.data.torchrows import RowsDataset

    names = [each.name for each in data.columns]
    found = ShardSource(
        blobs, layout, data.manifest, data.split, columns=names, name=data.reference
    )
    source = found if len(found) == len(data) else Part(found, data.start, data.stop)
    if batch_size is None:
        return RowsDataset(source)
    return dataloader_of(source, batch_size=batch_size, **options)


class Part:
    """Rows start..stop-1 of a source, as a source. Owns it."""

    def __init__(self, source: Source, start: int, stop: int) -> None:
        self._source, self._start, self._rows = source, start, max(0, stop - start)
        self.identity = f"{source.identity}[{start}:{stop}]"

    def __len__(self) -> int:
        return self._rows

    @property
    def columns(self) -> Sequence[Column]:
        return self._source.columns

    def gather(self, rows: Rows) -> dict[str, Values]:
        if len(rows) and (rows.min() < 0 or rows.max() >= self._rows):
            raise IndexError(f"rows 0..{self._rows - 1} are there")
        return self._source.gather(rows + self._start)

    def ahead(self, rows: Rows) -> None:
        self._source.ahead(rows + self._start)

    def done(self, rows: Rows) -> None:
        self._source.done(rows + self._start)

    def close(self) -> None:
        self._source.close()


def _needed(library: str, data: Dataset) -> Any:
    try:
        return import_module(library)
    except ImportError:
        extra = "torch" if library == "torch" else "frames"
        raise MissingExtra(
            f"{data.reference} as {library} needs {library}, which is not installed",
            f"pip install 'penstock[{extra}]'",
            library=library,
        ) from None
