"""Sorted runs: rows in order of their key, of which any range of keys is read by itself.

A run is one blob: a few hundred record batches ("chunks"), messages of Arrow's IPC format, one
behind the other. Who wrote it tells of each its rows, its bytes, its first key, and its XXH3-64: by
that a reader knows it for what was written, without reading the rest of the blob.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import xxhash

from penstock.base.errors import Damaged
from penstock.base.hashing import short
from penstock.blobs import Blobs
from penstock.data.columns import one_chunk


def put_run(
    blobs: Blobs, rows: pa.Table, key: str, counts: Sequence[int], chunks: int
) -> dict[str, Any]:
    """Store a run; what has to be known to read parts of it, as JSON.

    rows    part after part, each in order of the key
    counts  rows of each part
    chunks  of the run, about
    returns "blob", "schema" (of Arrow, in hexadecimal), "parts": of each "at", where it begins, and
            of its chunks "rows", "sizes" (bytes), "sums" (hashes) and "keys", the first of each;
            behind these the last key of all
    Raises what `put` raises.
    """
    batch = _one_batch(rows)
    step = max(1, -(-rows.num_rows // chunks))
    messages: list[memoryview] = []
    parts: list[dict[str, Any]] = []
    first = at = 0
    for count in counts:
        starts = range(first, first + count, step)
        own = [_message(batch, start, min(start + step, first + count)) for start in starts]
        ends = [*starts, first + count - 1] if count else []
        parts.append(
            {
                "at": at,
                "rows": [min(step, first + count - start) for start in starts],
                "sizes": [len(each) for each in own],
                "sums": [xxhash.xxh3_64_hexdigest(each) for each in own],
                "keys": [plain(batch[key][row].as_py()) for row in ends],
            }
        )
        messages += own
        at += sum(map(len, own))
        first += count
    blob = blobs.put(_bytes(messages), mend=True)
    return {"blob": blob, "schema": batch.schema.serialize().to_pybytes().hex(), "parts": parts}


def plain(key: Any) -> Any:
    """A key as JSON has it, in the same order."""
    return key.hex() if isinstance(key, bytes) else key


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    arrays = [one_chunk(each) for each in rows.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=rows.schema)


def _message(batch: pa.RecordBatch, start: int, end: int) -> memoryview:
    return memoryview(batch.slice(start, end - start).serialize())


def _bytes(messages: Sequence[memoryview]) -> Iterable[bytes]:
    yield from messages  # type: ignore[misc]  # a memoryview is as good as bytes to hash and write


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
