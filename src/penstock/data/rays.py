"""Ray Data: a version is read as a `ray.data.Dataset`, and one becomes a version.

Rows are read and written by Ray's tasks on its workers, from and to the blob store; what comes to
the caller are descriptions. The caller is a driver of Ray already: it made the Dataset, or
`ray.data` joins RAY_ADDRESS or starts Ray here, as it does by itself. Nothing here waits with a
deadline: the execution is Ray Data's, which ends with the driver.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from penstock.base.errors import BadInput, MissingExtra, PenstockError, Unavailable
from penstock.blobs import open_blobs
from penstock.data.clusters.port import ClusterRows
from penstock.data.clusters.refusing import refuse_near_blobs, refuse_types
from penstock.data.clusters.sending import in_text, results, told
from penstock.data.clusters.shelving import shelved
from penstock.data.clusters.units import FEW_CHUNKS, Task, with_key, write_units
from penstock.data.columns import Column, arrow_schema, tensor_array
from penstock.data.keys import KEY, KeyFunction
from penstock.data.preparation.steps import entry_of
from penstock.data.reading import parts_of as rows_in
from penstock.data.shard_parts import Part, parts_of, read_part

if TYPE_CHECKING:
    from penstock.data.dataset import Dataset
    from penstock.jobs.stores import Stores

T = TypeVar("T")
_SHOWN = 600  # characters of what Ray says


def ray_data() -> Any:
    """The module. Raises MissingExtra."""
    try:
        import ray.data
    except ImportError as error:
        raise MissingExtra(
            f"this needs Ray Data, which cannot be imported: {error}",
            "pip install 'penstock[ray-data]'",
        ) from None
    return ray.data


# reading


def to_ray(data: Dataset, url: str) -> Any:
    """A `ray.data.Dataset` whose blocks its workers read, one task for each shard.

    url  of the blob store
    Raises MissingExtra.
    """
    found = ray_data()
    shards = list(rows_in(data.manifest, data.split, data.start, data.stop))
    source = source_of(data, url, shards)
    return found.read_datasource(source, override_num_blocks=max(1, len(shards)))


def source_of(data: Dataset, url: str, shards: list[tuple[int, int, int]]) -> Any:
    """What Ray Data asks for read tasks. It may ask for fewer columns than the dataset has."""
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    columns = {each.name: each for each in data.columns}

    class Penstock(Datasource):
        _projection_map: dict[str, str] | None = None

        def supports_projection_pushdown(self) -> bool:
            return True

        def _wanted(self) -> list[Column]:
            named = self._projection_map
            wanted = [each for name, each in columns.items() if named is None or name in named]
            return wanted or list(columns.values())[:1]  # to count rows takes a column

        def estimate_inmemory_data_size(self) -> int:
            return data.manifest.split(data.split).bytes

        def get_read_tasks(
            self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
        ) -> list[Any]:
            wanted = self._wanted()
            parts = parts_of(data.manifest, data.split, wanted)
            return [
                ReadTask(
                    functools.partial(read_rows, url, parts[number], wanted, low, high),
                    BlockMetadata(
                        num_rows=high - low,
                        size_bytes=parts[number].bytes,
                        exec_stats=None,
                        input_files=None,
                    ),
                    schema=arrow_schema(wanted),
                    per_task_row_limit=per_task_row_limit,
                )
                for number, low, high in shards
            ]

    return Penstock()


def read_rows(
    url: str, part: Part, columns: Sequence[Column], low: int, high: int
) -> Iterator[pa.Table]:
    """On a worker: rows low..high-1 of a shard. Raises what `read_part` raises."""
    first = 0
    for table in read_part(open_blobs(url), part, columns):
        start, stop = max(low - first, 0), min(high - first, table.num_rows)
        if start < stop:
            yield table.slice(start, stop - start)
        first += table.num_rows


# writing


class RayRows:
    """The rows of a `ray.data.Dataset`, as `ClusterRows` has them."""

    label = "a Dataset of Ray's"
    unique = "Drop the repeated rows (ds.groupby(…)), or take another key."

    def __init__(self, given: Any, stores: Stores) -> None:
        self._given, self._stores = given, stores
        self._schema: pa.Schema | None = None

    def schema(self) -> pa.Schema:
        if self._schema is None:
            found = asked(self._given.schema)
            if found is None:
                raise BadInput(f"{self.label} has no rows", "Look at what it was made from.")
            kinds = dict(zip(found.names, map(_plain_type, found.types), strict=True))
            names = dict(zip(found.names, map(str, found.types), strict=True))
            refuse_types(
                kinds, names, "Make them numbers, text, bytes, times or arrays: ds.map_batches(…)."
            )
            self._schema = pa.schema(list(kinds.items()))
        return self._schema

    def check(self, stores: Stores) -> None:
        refuse_near_blobs(stores, _on_this_machine())

    def keyed(self, key: KeyFunction | None) -> ClusterRows:
        entry = "" if key is None else entry_of(key)[0]
        given = self._given.map_batches(
            functools.partial(_keyed, key=key, entry=entry), batch_format="pyarrow"
        )
        return RayRows(given, self._stores)

    def units(self, task: str, key: str) -> list[dict[str, Any]]:
        schema = self.schema()
        packed = self._given.map_batches(_packed, batch_format="pyarrow")
        work = functools.partial(
            _written, url=self._stores.blobs.url, task=task, schema=schema.serialize().to_pybytes()
        )
        made = packed.sort(key).map_batches(work, batch_format="pyarrow", batch_size=None)
        return results(json.loads(row["told"]) for row in asked(made.take_all))

    def shards(
        self, task: str, payloads: Sequence[dict[str, Any]], shared: dict[str, Any]
    ) -> list[dict[str, Any]]:
        import ray

        told_all = ray.put(shared)
        work = ray.remote(shelved)
        url = self._stores.blobs.url
        waiting = [work.remote(url, task, each, told_all) for each in payloads]
        return results(asked(lambda: ray.get(waiting)))


def _on_this_machine() -> bool:
    """Whether all of the cluster's nodes are on it."""
    import socket

    import ray

    names = {each["NodeManagerHostname"] for each in ray.nodes() if each["Alive"]}
    return names <= {socket.gethostname()}


def _keyed(table: pa.Table, key: KeyFunction | None, entry: str) -> pa.Table:
    return table.append_column(KEY, with_key(_plain(table), key, entry))


def _written(table: pa.Table, url: str, task: str, schema: bytes) -> pa.Table:
    def work() -> list[dict[str, Any]]:
        known, blobs = Task.read(url, task)
        return write_units(blobs, known, "a block", [_unpacked(table, schema)], FEW_CHUNKS)

    return pa.table({"told": [json.dumps(each) for each in told(work)]})


def _packed(table: pa.Table) -> pa.Table:
    """A block with tensors as the lists below them: Ray sorts no tensors of Arrow."""
    plain = _plain(table)
    return pa.table([_storage(each) for each in plain.columns], names=plain.column_names)


def _storage(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    return pa.chunked_array([c.storage for c in column.chunks], column.type.storage_type)


def _unpacked(table: pa.Table, schema: bytes) -> pa.Table:
    """The block that `_packed` was given. Its columns may come in another order."""
    wanted = pa.ipc.read_schema(pa.py_buffer(schema))
    arrays = []
    for field in wanted:
        found = table[field.name]
        if isinstance(field.type, pa.BaseExtensionType):
            chunks = [pa.ExtensionArray.from_storage(field.type, c) for c in found.chunks]
            found = pa.chunked_array(chunks, field.type)
        arrays.append(found)
    return pa.table(arrays, schema=wanted)


def _plain(table: pa.Table) -> pa.Table:
    """A block with Ray's own tensors as those of Arrow."""
    arrays = []
    for name in table.column_names:
        found = table[name]
        kind = _plain_type(found.type)
        if kind is not None and kind != found.type:
            values = [chunk.to_numpy(zero_copy_only=False) for chunk in found.chunks]
            found = tensor_array(np.concatenate(values))
        arrays.append(found)
    return pa.table(arrays, names=table.column_names)


def _plain_type(kind: Any) -> pa.DataType | None:
    """A type as a version would keep it; None for one that none can hold."""
    if not isinstance(kind, pa.DataType):
        return None
    shape = getattr(kind, "shape", None)
    if not isinstance(kind, pa.ExtensionType) or isinstance(kind, pa.FixedShapeTensorType):
        return kind
    return None if not shape or None in shape else pa.fixed_shape_tensor(kind.value_type, shape)


def asked(call: Callable[[], T]) -> T:
    """What a call into Ray gives. Raises the family's error for one of Ray's."""
    try:
        return call()
    except PenstockError:
        raise
    except Exception as error:
        text = str(error)
        if (sent := in_text(text)) is not None:
            raise sent from error
        if match := re.search(r"No module named '([\w.]+)'", text):
            raise BadInput(
                f"Ray's workers cannot import {match[1]}",
                "Install the same packages on every node as here: pip install "
                "'penstock[ray-data]'.",
                module=match[1],
            ) from error
        lines = [line for line in text.strip().splitlines() if line.strip()] or [repr(error)]
        raise Unavailable(
            f"Ray failed: {lines[-1][:_SHOWN]}", "Ray's own logs have the rest."
        ) from error
