"""One shard, or some of its columns, for a task on another machine.

All columns: the blob is read whole and compared with its hash. Some: only their bytes are read, by
ranges, and compared with the CRC-32 of their pages where they are Parquet, with nothing where they
are Arrow or both; `verify` reads the whole blob all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from penstock.base.errors import Damaged
from penstock.base.hashing import short
from penstock.blobs import Blobs
from penstock.data.at_rest import decode
from penstock.data.columns import Column, described
from penstock.data.formats.base import cut
from penstock.data.manifest import Manifest, ShardFormat
from penstock.data.mapped import arrow_length


class Part(NamedTuple):
    """A shard's blob. whole: it has no more columns than are wanted."""

    digest: str
    format: ShardFormat
    rows: int
    bytes: int
    whole: bool


def parts_of(manifest: Manifest, split: str, columns: Sequence[Column]) -> list[Part]:
    """The shards of a split in order, for a reader that wants these columns."""
    whole = len(columns) == len(manifest.columns)
    return [
        Part(each.digest, each.format, each.rows, each.bytes, whole)
        for each in manifest.shards_of(split)
    ]


def read_part(
    blobs: Blobs, part: Part, columns: Sequence[Column], verify: bool = False
) -> Iterator[pa.Table]:
    """Its rows under the columns' schema, at most 16 MiB at a time.

    Raises NotFound, Damaged, Unavailable.
    """
    names = [each.name for each in columns]
    if part.whole or verify:
        table = decode(blobs.get(part.digest), part.format, part.digest, names)
    else:
        table = _ranges(blobs, part, names)
    for _, piece in cut(described(table, columns)):
        yield piece


def _ranges(blobs: Blobs, part: Part, names: list[str]) -> pa.Table:
    with blobs.open(part.digest) as stream:
        try:
            if part.format == "parquet":
                file: Any = pa.PythonFile(stream, mode="r")
                parquet = pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True)
                return parquet.read(columns=names)
            file = pa.PythonFile(_Begin(stream), mode="r")
            schema = pa.ipc.open_file(file).schema
            fields = [schema.get_field_index(name) for name in names]
            options = pa.ipc.IpcReadOptions(included_fields=sorted(fields))
            return pa.ipc.open_file(file, options=options).read_all().select(names)
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise Damaged(
                f"blob {short(part.digest)} is not a shard of format {part.format}: {error}",
                "Run `penstock data verify`; prepare the dataset again with fresh=True.",
                digest=part.digest,
            ) from None


class _Begin:
    """The Arrow file that a blob begins with, as a file."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._size = arrow_length(self._at, stream.seek(0, os.SEEK_END))
        stream.seek(0)

    def _at(self, start: int, length: int) -> bytes:
        self._stream.seek(start)
        return self._stream.read(length)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset, whence = self._size + offset, os.SEEK_SET
        return self._stream.seek(offset, whence)

    def read(self, length: int = -1) -> bytes:
        left = max(0, self._size - self._stream.tell())
        return self._stream.read(left if length < 0 else min(length, left))

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None: ...
