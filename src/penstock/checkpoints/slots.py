"""Checkpoints that stay in shared memory: a slot per rank, which a later rank reads back.

A slot holds the part's bytes and, behind them, its index and the hashes of its chunks, as JSON.
The seal says where that lies and what its hash is; who keeps the slot keeps the seal, and a slot
without one is not whole. `load` then reads slots as it reads blobs, and verifies every chunk.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import xxhash

from penstock.base.errors import Damaged
from penstock.base.hashing import digest_json
from penstock.checkpoints.integrity import Damage
from penstock.checkpoints.manifest import Manifest, assemble, parse_manifest
from penstock.checkpoints.writer import chunks_of, described

Seal = dict[str, Any]


def room(index: dict[str, Any]) -> int:
    """Bytes that a slot for such a part should have: states grow a little from step to step."""
    text = len(json.dumps(index, separators=(",", ":")))
    size: int = (index["nbytes"] + 2 * text) * 5 // 4
    return max(4096, -(-size // 4096) * 4096)


def seal(buffer: memoryview, index: dict[str, Any]) -> Seal | None:
    """Hash what a copy left in the buffer, and write what a reader must know behind it.

    buffer   complete, and not changed any more
    returns  None when there is no room behind the part's bytes
    The hashing gives Python's lock away; a large state costs a pass over its memory.
    """
    nbytes = index["nbytes"]
    chunks = chunks_of(index)
    for chunk in chunks:
        piece = buffer[chunk.offset : chunk.offset + chunk.nbytes]
        chunk.xxh3 = xxhash.xxh3_128_hexdigest(piece)
    tail = {"index": index, "chunks": [chunk.as_dict() for chunk in chunks]}
    text = json.dumps(tail, separators=(",", ":")).encode()
    if nbytes + len(text) > buffer.nbytes:
        return None
    buffer[nbytes : nbytes + len(text)] = text
    return {"nbytes": nbytes, "tail": len(text), "xxh3": xxhash.xxh3_128_hexdigest(text)}


def index_of(buffer: memoryview, mark: Seal) -> dict[str, Any]:
    """The index that `seal` wrote behind a part."""
    text = bytes(buffer[mark["nbytes"] : mark["nbytes"] + mark["tail"]])
    index: dict[str, Any] = json.loads(text)["index"]
    return index


class Slots:
    """The slots of all ranks for one step, as `load` reads blobs.

    maps        in the order of the ranks
    seals       that they were given, likewise
    world_size  how many there should be
    Raises Damaged, its fact `damage` as of `load`, when a slot is not what its seal says.
    """

    def __init__(
        self,
        run_id: str,
        step: int,
        maps: Sequence[mmap.mmap],
        seals: Sequence[Seal],
        world_size: int,
    ) -> None:
        if len(maps) < world_size:
            raise _not_whole(step, len(maps))
        self._maps: dict[str, mmap.mmap] = {}
        parts = []
        for rank, (memory, mark) in enumerate(zip(maps, seals, strict=True)):
            name = digest_json(["slot", run_id, step, rank])
            self._maps[name] = memory
            tail = _tail(memory, mark, step, rank)
            parts.append(described(tail["index"], tail["chunks"], name))
        data, _ = assemble(run_id, step, 0, len(parts), parts, {})
        self.manifest: Manifest = parse_manifest(data, "a checkpoint in memory")

    @contextmanager
    def open(self, digest: str) -> Iterator[BinaryIO]:
        memory = self._maps[digest]
        memory.seek(0)
        yield cast(BinaryIO, memory)

    def close(self) -> None:
        for memory in self._maps.values():
            memory.close()


def _tail(memory: mmap.mmap, mark: Seal, step: int, rank: int) -> dict[str, Any]:
    begin = mark["nbytes"]
    text = memory[begin : begin + mark["tail"]]
    if xxhash.xxh3_128_hexdigest(text) != mark["xxh3"]:
        raise _not_whole(step, rank)
    found: dict[str, Any] = json.loads(text)
    return found


def _not_whole(step: int, rank: int) -> Damaged:
    return Damage(
        step, rank, None, (), "its slot in memory has changed, or is there no more"
    ).as_error()
