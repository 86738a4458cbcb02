"""Whether the heaps that hold an HDF5 array's texts are whole.

The library walks a heap by the sizes of its objects, and a damaged size sends it round for ever or
out of the heap. So before texts are read, the heaps that they lie in are walked here.
Source: HDF5 File Format Specification 3.0, III.E "Disk Format: Level 1E - Global Heap".
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
_HEADER = 16  # bytes of a heap's header, and of an object's
_LARGEST = 1 << 32


class Heaps:
    """The heaps of one open file; each is walked once."""

    def __init__(self, file: Any, stream: Any) -> None:
        self._file = file
        self._stream = stream
        self._seen: set[int] = set()

    def check(self, array: Any, first: int, end: int) -> None:
        """Raise ValueError where a heap that rows first..end of an array refer to is damaged."""
        if array.dtype.kind != "O" or self._file.id.get_create_plist().get_sizes() != (8, 8):
            return
        for raw in self._references(array, first, end):
            found = np.frombuffer(
                raw[: len(raw) // _REFERENCE.itemsize * _REFERENCE.itemsize], _REFERENCE
            )
            for address in np.unique(found["address"][found["length"] > 0]).tolist():
                if address not in self._seen:
                    self._walk(self._file.userblock_size + address)
                    self._seen.add(address)

    def _references(self, array: Any, first: int, end: int) -> Iterator[bytes]:
        """The array's raw rows, as they lie in the file."""
        low, size = array.id, _REFERENCE.itemsize
        if array.chunks is None:
            if (start := low.get_offset()) is not None:
                yield self._read(start + first * size, (end - first) * size)
            return
        rows = array.chunks[0]
        for row in range(first // rows * rows, end, rows):
            chunk = low.get_chunk_info_by_coord((row,))
            if chunk.byte_offset is not None:
                yield _plain(self._read(chunk.byte_offset, chunk.size), array, chunk.filter_mask)

    def _walk(self, at: int) -> None:
        header = self._read(at, _HEADER)
        size = int.from_bytes(header[8:16], "little")
        if header[:5] != b"GCOL\1" or not _HEADER <= size <= _LARGEST:
            raise ValueError(f"there is no heap of texts at byte {at}")
        data = self._read(at, size)
        here = _HEADER
        while here + _HEADER <= len(data):
            index = int.from_bytes(data[here : here + 2], "little")
            held = int.from_bytes(data[here + 8 : here + 16], "little")
            # The free space, object 0, counts its header; the others are padded to 8 bytes.
            step = held if index == 0 else _HEADER + (held + 7) // 8 * 8
            if step < _HEADER or here + step > size:
                raise ValueError(f"the heap of texts at byte {at} is damaged at byte {at + here}")
            here += step
        if len(data) < size:
            raise ValueError(f"the heap of texts at byte {at} is cut off")

    def _read(self, at: int, size: int) -> bytes:
        self._stream.seek(at)
        data: bytes = self._stream.read(size)
        return data


def _plain(raw: bytes, array: Any, mask: int) -> bytes:
    """A chunk's bytes before the filters that we know; b"" where there are others."""
    filters = array.id.get_create_plist()
    for number in reversed(range(filters.get_nfilters())):
        if mask >> number & 1:
            continue
        code = filters.get_filter(number)[0]
        if code == 1:
            try:
                raw = zlib.decompress(raw)
            except zlib.error:
                return b""  # the library will say so
        elif code == 2:
            whole = len(raw) // _REFERENCE.itemsize * _REFERENCE.itemsize
            parts = np.frombuffer(raw[:whole], np.uint8).reshape(_REFERENCE.itemsize, -1)
            raw = parts.T.tobytes()
        elif code == 3:
            raw = raw[:-4]  # a checksum, which the library compares
        else:
            return b""
    return raw
