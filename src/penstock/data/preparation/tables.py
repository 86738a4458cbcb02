"""Arrow tables between the stages of a preparation: one blob each, laid out to be mapped."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from penstock.base.errors import Damaged
from penstock.base.hashing import short
from penstock.blobs import Blobs
from penstock.data.arrow_files import open_batch, pieces, spread
from penstock.data.at_rest import put
from penstock.data.columns import Column, column_of_field
from penstock.data.manifest import ipc

_MOST_FETCHED = 256 << 20  # bytes of tables from a far store that a process keeps
_verified: set[tuple[str, str]] = set()  # (store, digest) of local blobs that this process compared
_fetched: OrderedDict[tuple[str, str], pa.Table] = OrderedDict()
_fetching = threading.Lock()  # threads that write shards read parts at the same time


def is_gap(field: pa.Field) -> bool:
    """Whether a field has no type yet, as none of its rows has a value."""
    nested = pa.types.is_list(field.type) and pa.types.is_null(field.type.value_type)
    return bool(pa.types.is_null(field.type) or nested)


def column_of(field: pa.Field) -> Column:
    """As `column_of_field`; a gap is a column of the kind "gap", whose dtype is not known."""
    return Column(field.name, "gap", "null") if is_gap(field) else column_of_field(field)


def told_column(field: pa.Field) -> Column:
    """As `column_of`; a gap that holds empty lists is a list of no dtype yet."""
    if is_gap(field) and not pa.types.is_null(field.type):
        return Column(field.name, "list", "null")
    return column_of(field)


def column_from(told: Mapping[str, Any]) -> Column:
    """The way back from `asdict`."""
    return Column(**{**told, "shape": tuple(told["shape"])})


def put_table(blobs: Blobs, table: pa.Table) -> str:
    """Store a table of rows. Raises what `put` raises."""
    return put(blobs, pieces(spread(table)))


def put_facts(blobs: Blobs, table: pa.Table) -> str:
    """Store a small table, its schema's metadata included."""
    return blobs.put(ipc(table))


def read_facts(blobs: Blobs, digest: str) -> pa.Table:
    """A table that `put_facts` stored. Raises NotFound, Damaged."""
    try:
        return pa.ipc.open_file(pa.py_buffer(blobs.get(digest))).read_all()
    except pa.ArrowException as error:
        raise _damaged(digest, error) from None


def read_table(blobs: Blobs, digest: str) -> pa.Table:
    """The rows of a blob, mapped where it lies on this machine; verified once per process.

    Raises NotFound, Damaged.
    """
    key = (blobs.url, digest)
    if (found := _kept(key)) is not None:
        return found
    path = blobs.path(digest)
    if path is None:
        found = _open(pa.py_buffer(blobs.get(digest)), digest)
        _keep(key, found)
        return found
    if key not in _verified:
        blobs.verify(digest)
        _verified.add(key)
    with pa.memory_map(str(path)) as mapped:
        return _open(mapped.read_buffer(), digest)


def trust(blobs: Blobs, digests: Iterable[str]) -> None:
    """These were hashed when they were written a moment ago; this process need not do it again."""
    _verified.update((blobs.url, digest) for digest in digests)


def _kept(key: tuple[str, str]) -> pa.Table | None:
    with _fetching:
        if key in _fetched:
            _fetched.move_to_end(key)
        return _fetched.get(key)


def _keep(key: tuple[str, str], table: pa.Table) -> None:
    with _fetching:
        _fetched[key] = table
        while len(_fetched) > 1 and sum(each.nbytes for each in _fetched.values()) > _MOST_FETCHED:
            _fetched.popitem(last=False)


def _open(data: pa.Buffer, digest: str) -> pa.Table:
    try:
        return pa.Table.from_batches([open_batch(data)])
    except (pa.ArrowException, ValueError) as error:
        raise _damaged(digest, error) from None


def _damaged(digest: str, error: Exception) -> Damaged:
    return Damaged(
        f"blob {short(digest)} does not hold the rows of a unit: {error}",
        "Prepare the dataset again with fresh=True.",
        digest=digest,
    )
