"""Rows and keys by their hash: which are equal, in memory that does not grow with the rows.

A row's hash is XXH3-128 over its columns in order of their names: 16 bytes each, first a number or
time as 8 bytes (or XXH3-128 of a longer value), all zero behind, and for a missing value a hash of
nothing else. Two different rows with one hash are not expected before some 10**19 rows.
Source: XXH3, Collet 2021.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from penstock.base.files import os_errors
from penstock.data.columns import Column, fixed_values, one_chunk
from penstock.data.encoding import value_bytes
from penstock.data.sketches import slices, words

Hashes = npt.NDArray[Any]  # of HASH
Records = npt.NDArray[Any]  # of RECORD

HASH = np.dtype([("high", "<u8"), ("low", "<u8")])
RECORD = np.dtype([("high", "<u8"), ("low", "<u8"), ("group", "<u4"), ("row", "<i8")])
BUDGET = 128 << 20  # bytes of records that are held before they go to a file
_PARTS = 256  # files, by the first 8 bits of the hash
_MISSING = xxhash.xxh3_128_digest(b"a value that is missing")
_CHUNK = 16


def hash_rows(table: pa.Table, columns: Sequence[Column]) -> Hashes:
    """The hash of each row over these columns: HASH [rows]; over none all rows are equal."""
    chosen = sorted(columns, key=lambda each: each.name)
    wide = np.zeros((table.num_rows, len(chosen), _CHUNK), np.uint8)
    for number, column in enumerate(chosen):
        _fill(wide[:, number], one_chunk(table[column.name]), column)
    size = len(chosen) * _CHUNK
    data = wide.reshape(-1).data
    places = (row * size for row in range(table.num_rows))
    digests = [xxhash.xxh3_128_digest(data[at : at + size]) for at in places]
    return np.frombuffer(b"".join(digests), HASH)


def _fill(out: npt.NDArray[np.uint8], array: pa.Array, column: Column) -> None:
    """The 16 bytes of each value of a column."""
    there = array.is_valid().to_numpy(zero_copy_only=False)
    values = array.drop_null()
    if column.kind == "time":
        values = values.cast(pa.int32() if values.type.bit_width == 32 else pa.int64())
    if column.kind in ("number", "time"):
        numbers = words(values.to_numpy(zero_copy_only=False)).astype("<u8")
        out[there, :8] = numbers.view(np.uint8).reshape(-1, 8)
    else:
        digests = b"".join(map(xxhash.xxh3_128_digest, _pieces(values, column)))
        out[there] = np.frombuffer(digests, np.uint8).reshape(-1, _CHUNK)
    out[~there] = np.frombuffer(_MISSING, np.uint8)


def _pieces(values: pa.Array, column: Column) -> Iterator[Any]:
    if column.kind in ("text", "bytes"):
        yield from slices(values)
    elif column.kind == "tensor":
        yield from np.ascontiguousarray(fixed_values(values, column))
    else:
        yield from (each or b"" for each in value_bytes(values, column))


def hash_keys(keys: pa.ChunkedArray | pa.Array) -> Hashes:
    """The hash of each key as text, so that 7 and "7" are one: HASH [rows]. None is missing."""
    array = one_chunk(keys) if isinstance(keys, pa.ChunkedArray) else keys
    if pa.types.is_binary(array.type):
        found: list[Any] = [each.hex().encode() for each in array.to_pylist()]
    else:
        found = slices(array.cast(pa.string()))
    return np.frombuffer(b"".join(map(xxhash.xxh3_128_digest, found)), HASH)


def records(hashes: Hashes, group: int, first: int) -> Records:
    """Hashes with where they come from: `group` is the caller's number (a split, a version), rows
    count from `first`."""
    found = np.empty(len(hashes), RECORD)
    found["high"], found["low"] = hashes["high"], hashes["low"]
    found["group"], found["row"] = group, np.arange(first, first + len(hashes))
    return found


class Sorter:
    """Takes records in any order and gives them back with equal hashes side by side.

    Up to `budget` bytes are held in memory; beyond, they lie in one unnamed file under the system's
    place for temporary files (or `folder`), in 256 parts by the first 8 bits of the hash. Memory is
    then bounded by the budget and the largest part. The file goes with `close`, and with the
    process however it ends. Use it as a context manager.
    """

    def __init__(
        self, dtype: np.dtype[Any] = RECORD, budget: int = BUDGET, folder: Path | None = None
    ) -> None:
        self._dtype = dtype
        self._budget = budget
        self._folder = folder
        self._held: list[Records] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._parts: list[list[tuple[int, int]]] = [[] for _ in range(_PARTS)]  # offset, bytes

    def __enter__(self) -> Sorter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget all; safe to call twice."""
        self._held, self._bytes = [], 0
        if self._file is not None:
            with suppress(OSError):  # what a full disk left unwritten
                self._file.close()
            self._file = None

    def add(self, found: Records) -> None:
        """Take records. Raises DiskFull where the file has no room."""
        if len(found):
            self._held.append(found)
            self._bytes += found.nbytes
        if self._bytes > self._budget:
            self._spill()

    def _spill(self) -> None:
        together = np.concatenate(self._held)
        self._held, self._bytes = [], 0
        part = (together["high"] >> np.uint64(56)).astype(np.int64)
        order = np.argsort(part, kind="stable")
        ends = np.cumsum(np.bincount(part, minlength=_PARTS)) * self._dtype.itemsize
        with os_errors("keeping the hashes of rows", self._folder or tempfile.gettempdir()):
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - see close
            at = self._file.seek(0, os.SEEK_END)
            self._file.write(together[order].tobytes())
            self._file.flush()
        for number, (start, stop) in enumerate(pairwise([0, *ends.tolist()])):
            if stop > start:
                self._parts[number].append((at + start, stop - start))

    def sorted(self) -> Iterator[Records]:
        """All records, in parts, sorted by hash; equal hashes are in one part and keep the order
        in which they were added."""
        if self._file is not None and self._held:
            self._spill()
        parts = self._read() if self._file is not None else iter([self._held] if self._held else [])
        for pieces in parts:
            part = np.concatenate(pieces)
            yield part[np.lexsort((part["low"], part["high"]))]

    def _read(self) -> Iterator[list[Records]]:
        for segments in self._parts:
            if self._file is not None and segments:
                number = self._file.fileno()
                yield [
                    np.frombuffer(os.pread(number, size, at), self._dtype) for at, size in segments
                ]


def runs(part: Records) -> npt.NDArray[np.int64]:
    """Where each run of equal hashes of a sorted part begins, and its end: int64 [runs + 1]."""
    if not len(part):
        return np.zeros(1, np.int64)
    new = (part["high"][1:] != part["high"][:-1]) | (part["low"][1:] != part["low"][:-1])
    return np.concatenate([[0], np.flatnonzero(new) + 1, [len(part)]]).astype(np.int64)
