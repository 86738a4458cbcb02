"""Sorted runs: rows in order of their key, of which any range of keys is read by itself.

A run is one blob: a few hundred record batches ("chunks"), messages of Arrow's IPC format, one
behind the other. Who wrote it tells of each its rows, its bytes, its first key, and its XXH3-64: by
that a reader knows it for what was written, without reading the rest of the blob.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from penstock.base.errors import Damaged
from penstock.base.hashing import short
from penstock.blobs import Blobs

Order = npt.NDArray[np.integer[Any]]


def put_run(
    blobs: Blobs, rows: pa.RecordBatch, order: Order, counts: Sequence[int], key: str, chunks: int
) -> dict[str, Any]:
    """Store a run; what has to be known to read parts of it, as JSON.

    order   numbers of the rows: part after part, each in order of the key
    counts  rows of each part
    chunks  of the run, about
    returns "blob", "schema" (of Arrow, in hexadecimal), "parts": of each "at", where it begins, and
            of its chunks "rows", "sizes" (bytes), "sums" (hashes) and "keys", the first of each;
            behind these the last key of all
    Raises what `put` raises.
    """
    step = max(1, -(-len(order) // chunks))
    parts: list[dict[str, Any]] = []

    def messages() -> Iterator[bytes]:  # one at a time, in memory that is warm
        first = at = 0
        for count in counts:
            ends = [*range(first, first + count, step), first + count]
            part: dict[str, Any] = {"at": at, "rows": np.diff(ends).tolist(), "sizes": []}
            part |= {"sums": [], "keys": _keys(rows[key], order, ends) if count else []}
            for start, end in pairwise(ends):
                message = rows.take(pa.array(order[start:end])).serialize()
                part["sizes"].append(len(message))
                part["sums"].append(xxhash.xxh3_64_hexdigest(message))
                yield memoryview(message)  # type: ignore[misc]  # as good as bytes to be written
            parts.append(part)
            at += sum(part["sizes"])
            first += count

    blob = blobs.put(messages(), mend=True)
    return {"blob": blob, "schema": rows.schema.serialize().to_pybytes().hex(), "parts": parts}


def _keys(keys: pa.Array, order: Order, ends: Sequence[int]) -> list[Any]:
    """The first key of each chunk, and the last one."""
    rows = order[[*ends[:-1], ends[-1] - 1]]
    return [plain(each) for each in keys.take(pa.array(rows)).to_pylist()]


def plain(key: Any) -> Any:
    """A key as JSON has it, in the same order."""
    return key.hex() if isinstance(key, bytes) else key


def read_chunks(
    blobs: Blobs, blob: str, at: int, sizes: Sequence[int], sums: Sequence[str], schema: str
) -> list[pa.RecordBatch]:
    """Chunks that lie one behind the other; mapped where the blob lies on this machine.

    at  where the first begins
    Raises NotFound, Damaged, Unavailable.
    """
    kind = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(schema)))
    data = _range(blobs, blob, at, sum(sizes))
    found = []
    start = 0
    for size, told in zip(sizes, sums, strict=True):
        if start + size > len(data):
            raise _damaged(blob, f"it ends at byte {at + len(data)}")
        message = data.slice(start, size)
        if xxhash.xxh3_64_hexdigest(message) != told:
            last = at + start + size - 1
            raise _damaged(blob, f"bytes {at + start} to {last} are not those that were written")
        found.append(pa.ipc.read_record_batch(message, kind))
        start += size
    return found


def _damaged(blob: str, what: str) -> Damaged:
    return Damaged(
        f"blob {short(blob)} is damaged: {what}",
        "Write the dataset again. Look at the disk that holds the blobs.",
        digest=blob,
    )


def _range(blobs: Blobs, blob: str, start: int, length: int) -> pa.Buffer:
    path = blobs.path(blob)
    if path is None:
        return pa.py_buffer(blobs.read(blob, start, length))
    with pa.memory_map(str(path)) as mapped:
        mapped.seek(min(start, mapped.size()))
        return mapped.read_buffer(length)
