"""From a filled buffer to a durable blob: what the checkpoint writer does beside training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import xxhash

from penstock.base.errors import BadInput
from penstock.base.hashing import digest_json
from penstock.blobs import Begun, Blobs
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
    chunks = chunks_of(index)
    # A run that met damage, fell back and computed the same step again comes with the same bytes,
    # and "already there" would then be the damaged blob: so what is there is read, and mended.
    blob = blobs.put(_hashed(_part(buffer, index), chunks), mend=True)
    return described(index, [chunk.as_dict() for chunk in chunks], blob)


def begin(buffer: memoryview, index: dict[str, Any], blobs: Blobs) -> tuple[Begun, dict[str, Any]]:
    """The first half of `persist`: what is to become visible, and its description."""
    chunks = chunks_of(index)
    begun = blobs.begin(_hashed(_part(buffer, index), chunks), mend=True)
    return begun, described(index, [chunk.as_dict() for chunk in chunks], begun.digest)


def _part(buffer: memoryview, index: dict[str, Any]) -> memoryview:
    nbytes = index["nbytes"]
    if buffer.nbytes < nbytes:
        raise BadInput(
            f"the buffer has {buffer.nbytes} bytes and its index speaks of {nbytes}",
            "Give persist the buffer and the index of the same plan.",
        )
    return buffer.cast("B")[:nbytes]


def chunks_of(index: dict[str, Any]) -> list[Chunk]:
    """The chunks of a part, not hashed yet."""
    pieces = [Piece.from_dict(piece) for piece in index["pieces"]]
    return cut(pieces, lambda piece: _name(index, piece), index["nbytes"])


def described(index: dict[str, Any], chunks: list[dict[str, Any]], blob: str) -> dict[str, Any]:
    """What `assemble` must know of a part. chunks: `Chunk.as_dict`; blob: where its bytes are."""
    first = index["rank"] == 0
    return {
        "format": FORMAT,
        "rank": index["rank"],
        "world_size": index["world_size"],
        "blob": blob,
        "nbytes": index["nbytes"],
        "chunks": chunks,
        "pieces": index["pieces"],
        "own": index["own"],
        "shared": index["shared"] if first else None,  # equal on all ranks, which the digests show
        "agreement": agreement(index["shared"]),
    }


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
