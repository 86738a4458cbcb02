"""From a filled buffer to a durable blob: what the checkpoint writer does beside training."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import xxhash

from penstock.base.errors import BadInput, NotFound
from penstock.base.hashing import digest_json
from penstock.blobs import Blobs
from penstock.checkpoints.chunks import Chunk, cut
from penstock.checkpoints.layout import FORMAT, Piece


def persist(buffer: memoryview, index: dict[str, Any], blobs: Blobs) -> dict[str, Any]:
    """Store one rank's part and return its description, JSON-able, for `assemble`.

    buffer  what `Plan.copy_into` filled; must not change meanwhile
    index   `Plan.index`
    Streams: at most one chunk (4 MiB) is held beside the buffer. Nothing is visible until the
    whole part is durable. A damaged blob that has this address already is replaced. Raises what
    `blobs.put` raises (DiskFull, ReadOnly, Unavailable), and BadInput.
    """
    nbytes = index["nbytes"]
    if buffer.nbytes < nbytes:
        raise BadInput(
            f"the buffer has {buffer.nbytes} bytes and its index speaks of {nbytes}",
            "Give persist the buffer and the index of the same plan.",
        )
    pieces = [Piece(**piece) for piece in index["pieces"]]
    chunks = cut(pieces, lambda piece: _name(index, piece), nbytes)
    blob = _store(buffer.cast("B")[:nbytes], chunks, blobs)
    first = index["rank"] == 0
    return {
        "format": FORMAT,
        "rank": index["rank"],
        "world_size": index["world_size"],
        "blob": blob,
        "nbytes": nbytes,
        "chunks": [chunk.as_dict() for chunk in chunks],
        "pieces": index["pieces"],
        "own": index["own"],
        "shared": index["shared"] if first else None,  # equal on all ranks, which the digests show
        "agreement": agreement(index["shared"]),
    }


def _store(data: memoryview, chunks: list[Chunk], blobs: Blobs) -> str:
    """Put the part, and make sure that what lies under its address is the part.

    A store keeps what it has under an address. But a run that met damage, fell back and computed
    the same step again comes with the same bytes, and "already there" is then the damaged blob.
    So a blob older than this call is read before it is relied on.
    """
    started = time.time()
    blob = blobs.put(_hashed(data, chunks))
    found = blobs.stat(blob)
    if found is not None and found.modified < started and not _is_whole(blob, chunks, blobs):
        blobs.condemn(blob)
        blobs.put(_hashed(data, chunks))
        blobs.purge(blob)  # the damaged copy; the one just put is visible
    return blob


def _is_whole(blob: str, chunks: list[Chunk], blobs: Blobs) -> bool:
    try:
        with blobs.open(blob) as stream:
            read = (xxhash.xxh3_128_hexdigest(stream.read(chunk.nbytes)) for chunk in chunks)
            return all(xxh3 == chunk.xxh3 for xxh3, chunk in zip(read, chunks, strict=True))
    except (NotFound, OSError):
        return False


def agreement(shared: dict[str, Any]) -> dict[str, str]:
    """A digest for every top-level part of the shared tree, without the tensors' bytes.

    Ranks whose digests differ do not train the same model; the key says where they part.
    """
    structure, entries = shared["structure"], shared["entries"]
    pairs = structure["dict"] if isinstance(structure, dict) and "dict" in structure else []
    found = {str(key): digest_json(value) for key, value in pairs}
    found["(tensors)"] = digest_json(entries)
    if not pairs:
        found["(tree)"] = digest_json(structure)
    return found


def _hashed(data: memoryview, chunks: list[Chunk]) -> Iterator[bytes]:
    """The chunks' bytes, each hashed on its way out.

    Hash and store see one copy: were the buffer to change meanwhile, they would still agree.
    """
    for chunk in chunks:
        piece = bytes(data[chunk.offset : chunk.offset + chunk.nbytes])
        chunk.xxh3 = xxhash.xxh3_128_hexdigest(piece)
        yield piece


def _name(index: dict[str, Any], piece: Piece) -> str:
    name: str = index[piece.tree]["entries"][piece.entry]["name"]
    return name
