"""The digest of a split's content: equal rows in equal order give it, however they are sharded.

    canonical JSON of [[name, kind, dtype, shape, V, G], …] in order of the columns, hashed, where
    V = SHA-256 over the SHA-256 of every 256 rows' values as `encoding.py` has them (missing
        ones left out), and
    G = likewise over one byte per row: 1 where there is a value, 0 where it is missing

It keys the order of law 6, so that a dataset cut into other shards trains the same. Blocks of 256
rows can be digested by many processes; only their digests have to come together in order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.base.hashing import Hasher, digest_json
from penstock.data.columns import Column, one_chunk
from penstock.data.encoding import Encoded, encoded

BLOCK = 256  # rows
_ONES = memoryview(b"\1" * BLOCK)
_ALL = hashlib.sha256(_ONES).digest()


class Content:
    """Feed it a split's rows in order, in pieces of any size; then ask for `digest`."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._blocks = BlockDigests(columns)
        self._values = [Hasher() for _ in columns]
        self._there = [Hasher() for _ in columns]

    def add(self, table: pa.Table) -> None:
        """These rows come next."""
        self._blocks.add(table)
        self.join(self._blocks.take())

    def join(self, digests: Sequence[tuple[bytes, bytes]]) -> None:
        """The blocks that come next were digested elsewhere: `BlockDigests.take` or `end`."""
        for values, there, found in zip(self._values, self._there, digests, strict=True):
            values.update(found[0])
            there.update(found[1])

    @property
    def digest(self) -> str:
        self.join(self._blocks.end())
        return digest_json(
            [
                [c.name, c.kind, c.dtype, list(c.shape), values.digest, there.digest]
                for c, values, there in zip(self._columns, self._values, self._there, strict=True)
            ]
        )


class BlockDigests:
    """The digests of blocks of 256 rows: feed rows that begin where a block does.

    `take` gives, per column, the digests (32 bytes each) of the values and of the gaps of every
    block that is whole by now; `end` gives the last one too, though it is shorter.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._values = [_Blocks() for _ in columns]
        self._there = [_Blocks() for _ in columns]

    def add(self, table: pa.Table) -> None:
        for column, values, there in zip(self._columns, self._values, self._there, strict=True):
            array = one_chunk(table[column.name])
            if array.null_count:
                valid = array.is_valid().to_numpy(zero_copy_only=False)
                flags = np.ascontiguousarray(valid, dtype="u1")
                there.add(Encoded(flags.data, np.arange(len(flags) + 1)))
            else:
                there.add_ones(len(array))
            values.add(encoded(array, column))

    def take(self) -> list[tuple[bytes, bytes]]:
        both = zip(self._values, self._there, strict=True)
        return [(values.take(), there.take()) for values, there in both]

    def end(self) -> list[tuple[bytes, bytes]]:
        for blocks in (*self._values, *self._there):
            blocks.close()
        return self.take()


class _Blocks:
    """SHA-256 of every 256 values of one column."""

    def __init__(self) -> None:
        self._open: Any = hashlib.sha256()
        self._rows = 0  # in the open block
        self._done: list[bytes] = []

    def add(self, values: Encoded) -> None:
        cuts = self._cuts(len(values.ends) - 1)
        places = values.ends[cuts].tolist()
        for rows, (start, stop) in zip(np.diff(cuts).tolist(), pairwise(places), strict=True):
            self._take(values.data[start:stop], rows)

    def add_ones(self, rows: int) -> None:
        """As many bytes of 1: what is so common that most of it is not hashed again."""
        for start, stop in pairwise(self._cuts(rows)):
            if stop - start == BLOCK:
                self._done.append(_ALL)
            else:
                self._take(_ONES[: stop - start], stop - start)

    def _cuts(self, rows: int) -> list[int]:
        """Where blocks end among the next rows, and their ends."""
        return [0, *range(BLOCK - self._rows, rows, BLOCK), rows] if rows else [0]

    def _take(self, data: memoryview, rows: int) -> None:
        if rows == BLOCK:
            self._done.append(hashlib.sha256(data).digest())
            return
        self._open.update(data)
        self._rows += rows
        if self._rows == BLOCK:
            self.close()

    def close(self) -> None:
        if self._rows:
            self._done.append(self._open.digest())
            self._open, self._rows = hashlib.sha256(), 0

    def take(self) -> bytes:
        found, self._done = b"".join(self._done), []
        return found
