"""The digest of a split's content: equal rows in equal order give it, however they are sharded.

    canonical JSON of [[name, kind, dtype, shape, V, G], …] in order of the columns, hashed, where
    V = SHA-256 over the values as `keys.py` encodes them (missing ones left out), and
    G = SHA-256 over one byte per row: 1 where there is a value, 0 where it is missing

It keys the order of law 6, so that a dataset cut into other shards trains the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from penstock.base.hashing import Hasher, digest_json
from penstock.data.columns import Column, fixed_values, one_chunk
from penstock.data.keys import value_bytes


class Content:
    """Feed it a split's rows in order, in pieces of any size; then ask for `digest`."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = columns
        self._values = [Hasher() for _ in columns]
        self._there = [Hasher() for _ in columns]

    def add(self, table: pa.Table) -> None:
        for column, values, there in zip(self._columns, self._values, self._there, strict=True):
            array = one_chunk(table[column.name])
            valid = array.is_valid().to_numpy(zero_copy_only=False)
            there.update(valid.astype("u1").tobytes())
            if column.fixed and not array.null_count:
                numbers = fixed_values(array, column)
                values.update(numbers.astype(numbers.dtype.newbyteorder("<"), copy=False).tobytes())
            else:
                values.update(b"".join(v for v in value_bytes(array, column) if v is not None))

    @property
    def digest(self) -> str:
        return digest_json(
            [
                [c.name, c.kind, c.dtype, list(c.shape), values.digest, there.digest]
                for c, values, there in zip(self._columns, self._values, self._there, strict=True)
            ]
        )
