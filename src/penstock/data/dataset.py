"""`Dataset`: one split of a version, or a part of it, as something to look into and to hand on.

Lazy: opening reads the manifest only. Rows come shard by shard, each verified against its hash,
and only the columns that are asked for are decoded. Nothing stays open; the shard that was read
last is remembered, so that `data[3]`, `data[4]` read it once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput
from penstock.data.columns import Column, Values, arrow_schema, fixed_values, one_chunk, values_of
from penstock.data.formats.base import cut
from penstock.data.manifest import Lineage, Manifest, Split, read_manifest
from penstock.data.plain import array_of
from penstock.data.reading import parts_of, read_shard, resolve
from penstock.data.source import chosen
from penstock.data.statistics import Statistics

if TYPE_CHECKING:
    from penstock.base.layout import Layout
    from penstock.blobs import Blobs
    from penstock.data.expectations import Expectations, Violation
    from penstock.jobs.stores import Stores

_SHOWN = 5  # rows of a dataset in a notebook


class Rows(list[dict[str, Any]]):
    """Rows as a list of dictionaries, which shows large values by what they are.

    Numbers, text, bytes and times as Python has them; tensors and lists as NumPy arrays;
    references as `Reference`; what is missing as None.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], columns: Sequence[Column]) -> None:
        super().__init__(rows)
        self.columns = tuple(columns)

    def __repr__(self) -> str:
        from penstock.data.showing import row_text

        return "[" + ",\n ".join(row_text(row, self.columns) for row in self) + "]"

    def _repr_html_(self) -> str:
        from penstock.data.notebook import rows_html

        return rows_html(self, self.columns)


class Dataset:
    """What `ps.open` gives. Threads may share it.

    reference  NAME@VERSION:SPLIT, what the asked reference meant

    `len(data)`, `data[3]` (a row), `data[:5]` (rows), `data["label"]` (a column), iteration over
    rows; `select` for a part of the columns or rows. It is a stream of Arrow for whoever takes one
    (`polars.DataFrame(data)`, DuckDB's `FROM data`, `pandas.DataFrame.from_arrow(data)`).

    Whatever reads raises Damaged, which names the shard, and Unavailable.
    """

    def __init__(
        self,
        blobs: Blobs,
        manifest: Manifest,
        reference: str,
        split: str,
        *,
        columns: Sequence[str] | None = None,
        start: int = 0,
        stop: int | None = None,
        layout: Layout | None = None,
    ) -> None:
        self.reference = reference
        self.manifest = manifest
        self.split = split
        self.columns: tuple[Column, ...] = tuple(chosen(manifest, columns))
        rows = manifest.split(split).rows
        self.start, self.stop, _ = slice(start, stop).indices(rows)
        self._blobs, self._layout = blobs, layout
        self._last: tuple[int, pa.Table] | None = None

    # what it is

    @property
    def schema(self) -> dict[str, Column]:
        """Columns by name, in order: kind, dtype, shape, meaning."""
        return {each.name: each for each in self.columns}

    @property
    def arrow_schema(self) -> pa.Schema:
        """The same as Arrow has it; meanings are metadata of the fields."""
        return arrow_schema(self.columns)

    @property
    def splits(self) -> Mapping[str, Split]:
        """Every split of the version: rows, shards, bytes, digest of the content."""
        return MappingProxyType(self.manifest.splits)

    @property
    def statistics(self) -> dict[str, Statistics]:
        """Of each column, over the whole version."""
        found = self.manifest.statistics
        return {each.name: found[each.name] for each in self.columns if each.name in found}

    @property
    def lineage(self) -> Lineage:
        """The function, code, parameters and inputs that made it."""
        return self.manifest.lineage

    @property
    def _version(self) -> str:
        """NAME@VERSION."""
        return self.reference.removesuffix(f":{self.split}")

    @property
    def whole(self) -> bool:
        """Whether it is all rows and columns of its split."""
        rows = (self.start, self.stop) == (0, self.manifest.split(self.split).rows)
        return rows and len(self.columns) == len(self.manifest.columns)

    # what is expected of it

    def expectations(self) -> Expectations:
        """What the next version should look like, inferred from all splits of this one.

        `.to_toml()` is the file that people edit.
        """
        from penstock.data.expectations import infer

        return infer(self._blobs, self.manifest, self._version)

    def check(self, expectations: str | Path | Expectations) -> list[Violation]:
        """What of the expectations (or of their file) does not hold, in the order of the file.

        Reads every row of the version, all splits of it whatever part this is: a leak is between
        splits. Raises NotFound for a file that is not there, BadInput for a wrong one.
        """
        from penstock.data.expectations import check, load

        return check(self._blobs, self.manifest, load(expectations))

    # parts

    def select(
        self, columns: Sequence[str] | None = None, start: int = 0, stop: int | None = None
    ) -> Dataset:
        """Some columns and some rows, just as lazy.

        columns      names; they come in the schema's order. NotFound offers the nearest
        start, stop  rows of this dataset, counted as slices count
        """
        if isinstance(columns, str):
            raise BadInput("columns is one text", f'Give a list: columns=["{columns}"].')
        names = [each.name for each in self.columns] if columns is None else list(columns)
        first, last, _ = slice(start, stop).indices(len(self))
        return Dataset(
            self._blobs,
            self.manifest,
            self.reference,
            self.split,
            columns=names,
            start=self.start + first,
            stop=self.start + max(first, last),
            layout=self._layout,
        )

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    @overload
    def __getitem__(self, where: str) -> Values: ...
    @overload
    def __getitem__(self, where: SupportsIndex) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, where: slice) -> Rows: ...
    def __getitem__(self, where: SupportsIndex | slice | str) -> dict[str, Any] | Rows | Values:
        """A row, rows, or a whole column (numbers and tensors as NumPy, all else as a list)."""
        if isinstance(where, str):
            return self.select([where]).to_numpy()[where]
        if not isinstance(where, slice):
            at = range(len(self))[where]
            return self._rows(range(at, at + 1))[0]
        wanted = range(len(self))[where]
        if wanted.step < 0:
            return Rows(self._rows(wanted[::-1])[::-1], self.columns)
        return Rows(self._rows(wanted), self.columns)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.to_batches():
            yield from as_rows(batch, self.columns, self._blobs.url)

    def _rows(self, wanted: range) -> list[dict[str, Any]]:
        """Rows by ascending numbers; shards that have none of them are not read."""
        rows: list[dict[str, Any]] = []
        if not wanted:
            return rows
        numbers = np.asarray(wanted, np.int64) + self.start
        begin = int(numbers[0])  # number of the first row of the part that comes next
        for shard, low, high in parts_of(self.manifest, self.split, begin, int(numbers[-1]) + 1):
            end = begin + high - low
            here = numbers[np.searchsorted(numbers, begin) : np.searchsorted(numbers, end)]
            if len(here):
                table = self._shard(shard).take(array_of(here - begin + low))
                rows += as_rows(table, self.columns, self._blobs.url)
            begin = end
        return rows

    # streams

    def to_batches(
        self,
        columns: Sequence[str] | None = None,
        start: int = 0,
        stop: int | None = None,
        batch_rows: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Arrow record batches in order: of at most 16 MiB, or of at most `batch_rows` rows.

        Only the shards that hold the rows are read, one at a time, and only the columns decoded.
        """
        if batch_rows is not None and batch_rows < 1:
            raise BadInput(f"{batch_rows} rows make no batch", "Give at least one.")
        part = self.select(columns, start, stop)
        return part._batches(batch_rows)

    def _batches(self, batch_rows: int | None) -> Iterator[pa.RecordBatch]:
        for table in self._tables(self.start, self.stop):
            for _, piece in [(0, table)] if batch_rows else cut(table):
                yield from piece.combine_chunks().to_batches(max_chunksize=batch_rows)

    def _tables(self, start: int, stop: int) -> Iterator[pa.Table]:
        for number, low, high in parts_of(self.manifest, self.split, start, stop):
            yield self._shard(number).slice(low, high - low)

    def _shard(self, number: int) -> pa.Table:
        last = self._last
        if last is None or last[0] != number:
            names = [each.name for each in self.columns]
            table = read_shard(self._blobs, self.manifest, self.split, number, names)
            self._last = last = number, table
        return last[1]

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A new stream of all rows, by Arrow's PyCapsule interface."""
        return self.to_reader().__arrow_c_stream__(requested_schema)

    def to_reader(self) -> pa.RecordBatchReader:
        """A new stream of all rows as a `pyarrow.RecordBatchReader`."""
        return pa.RecordBatchReader.from_batches(self.arrow_schema, self._batches(None))

    # bridges, see frames.py

    def to_arrow(self) -> pa.Table:
        """All rows as a `pyarrow.Table`."""
        return self.to_reader().read_all()

    def to_numpy(self) -> dict[str, Values]:
        """Column -> NumPy array [rows, *shape]; all else, and whole numbers with gaps, as lists."""
        from penstock.data import frames

        return frames.to_numpy(self, self._blobs.url)

    def to_pandas(self) -> Any:
        """A pandas frame; tensors are objects, one NumPy array per row. MissingExtra."""
        from penstock.data import frames

        return frames.to_pandas(self)

    def to_polars(self) -> Any:
        """A polars frame; tensors are columns of `pl.Array` of their shape. MissingExtra."""
        from penstock.data import frames

        return frames.to_polars(self)

    def to_duckdb(self, connection: Any = None) -> Any:
        """A DuckDB relation that reads this dataset as a stream whenever it is run. MissingExtra.

        connection  default: DuckDB's own
        """
        from penstock.data import frames

        return frames.to_duckdb(self, connection)

    def to_torch(self, batch_size: int | None = None, **options: Any) -> Any:
        """A map-style torch Dataset, gathered from memory maps; with `batch_size` a DataLoader.

        options  of `dataloader_of` (torchdata.py): seed, shuffle, drop_last, num_workers, …; its
                 order is that of `run.data`

        Raises MissingExtra without torch, BadInput for gaps that no tensor can hold.
        """
        from penstock.data import frames

        return frames.to_torch(self, self._blobs, self._layout, batch_size, **options)

    def to_ray(self) -> Any:
        """A `ray.data.Dataset`: Ray's workers read the blocks, by shard, from the blob store.

        `select(columns)` first, or Ray Data's `select_columns`, reads these columns alone.
        Raises MissingExtra.
        """
        from penstock.data.rays import to_ray

        return to_ray(self, self._blobs.url)

    # how it shows

    def __repr__(self) -> str:
        from penstock.data.showing import dataset_text

        return dataset_text(self)

    def _repr_html_(self) -> str:
        from penstock.data.notebook import dataset_html

        return dataset_html(self, self[:_SHOWN])


def open_dataset(stores: Stores, reference: str) -> Dataset:
    """One split of NAME[@VERSION-OR-ALIAS][:SPLIT].

    NotFound offers the nearest; BadInput asks for a split where there are several.
    """
    with stores.meta.read() as meta:
        version, split = resolve(meta, reference)
    manifest = read_manifest(stores.blobs, version.digest, version.reference)
    if split is None:
        names = list(manifest.splits)
        raise BadInput(
            f"{version.reference} has several splits: {', '.join(names)}",
            f'Name one: "{version.reference}:{names[0]}".',
            reference=reference,
            splits=names,
        )
    where = f"{version.reference}:{split}"
    return Dataset(stores.blobs, manifest, where, split, layout=stores.layout)


def as_rows(
    table: pa.Table | pa.RecordBatch, columns: Sequence[Column], store: str = ""
) -> Iterator[dict[str, Any]]:
    """Rows as `Rows` describes them.

    store  URL of the blob store that references of the form sha256:… read from
    """
    values = [_row_values(table[each.name], each, store) for each in columns]
    names = [each.name for each in columns]
    for row in zip(*values, strict=True):
        yield dict(zip(names, row, strict=True))


def _row_values(found: pa.Array | pa.ChunkedArray, column: Column, store: str) -> Any:
    array = one_chunk(found) if isinstance(found, pa.ChunkedArray) else found
    if column.kind == "tensor":
        return fixed_values(array, column).copy()  # a row may be written to, and keeps no shard
    if column.kind == "number":
        return array.to_pylist()
    values = values_of(array, column, store)
    return (
        [None if each is None else each.copy() for each in values]
        if column.kind == "list"
        else values
    )
