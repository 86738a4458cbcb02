"""Where a part is cut into chunks: the unit of verification and of reading.

A chunk of at most 4 MiB holds one tensor, a slice of a large one, or several small ones; a chunk
never holds both shared and own state, so that a rank need not read the others' own. Together the
chunks cover every byte of the part, padding included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.checkpoints.layout import Piece

LARGEST = 4 << 20  # bytes
_PACK_LEAST, _PACK_MOST = 4 << 10, 1 << 20  # bytes; small tensors are packed up to this
_PER_PART = 64  # how many chunks a part of middling size should have


@dataclass(slots=True)
class Chunk:
    """offset, nbytes  in the part
    tensors  names of the entries that have bytes in it
    xxh3     hex XXH3-128 of the bytes; empty until they are read
    """

    offset: int
    nbytes: int
    tensors: list[str] = field(default_factory=list)
    xxh3: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "offset": self.offset,
            "nbytes": self.nbytes,
            "xxh3": self.xxh3,
            "tensors": self.tensors,
        }


def cut(pieces: Sequence[Piece], name: Callable[[Piece], str], nbytes: int) -> list[Chunk]:
    """Cut a part of `nbytes` bytes, whose pieces are in the order of their offsets.

    A tensor as large as a 64th of the part (at least 4 KiB, at most 1 MiB) stands alone, so that
    even a small model has several chunks and a large one no more than it needs.
    """
    pack = min(max(nbytes // _PER_PART, _PACK_LEAST), _PACK_MOST)
    chunks: list[Chunk] = []
    tree, open_for_more = "", False
    for piece in pieces:
        alone = piece.nbytes >= pack
        end = piece.offset + piece.nbytes
        fits = open_for_more and not alone and piece.tree == tree
        if fits and end - chunks[-1].offset <= pack:
            chunks[-1].tensors.append(name(piece))
        else:
            offsets = range(piece.offset, end, LARGEST)
            chunks += [Chunk(offset, 0, [name(piece)]) for offset in offsets]
        tree, open_for_more = piece.tree, not alone
    ends = [chunk.offset for chunk in chunks[1:]] + [nbytes]
    for chunk, end in zip(chunks, ends, strict=bool(chunks)):
        chunk.nbytes = end - chunk.offset
    return chunks
