"""One array over all shards of a split, without copying any: a strip of address space per column.

A strip reserves addresses for a column of fixed width over the whole split. Where a shard is open,
the column's pages of its file are mapped into the strip; everywhere else nothing can be read
(PROT_NONE). So one `np.take` per column serves a batch, however many shards it touches.

    place of row r of shard s  =  base + (r + shift[s]) * width

The shift makes every shard start at a page, and where pieces are large at a multiple of 2 MiB, as
far from one as the piece in its file is: then the kernel maps 2 MiB at once, and random rows cost
half (measured: fewer misses of the TLB). Rows of small width, cut as Penstock cuts, need none. A
piece that does not start at a page of its file, or is in no file, is copied into the strip.

Reading where no shard is open would kill the process: `ShardSource` opens the shards of a batch
before it takes, and unmaps only while nobody takes. A file under a map is never changed, only
unlinked, so a page cannot go away under a reader. Linux only; elsewhere there are no strips.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.data.columns import Array, Column

_MOST = 1 << 45  # bytes of addresses for one column: a quarter of what x86-64 gives a process
_HUGE = 2 << 20  # what the kernel maps at once, if it can
_MADV_HUGEPAGE = 14
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000
_FAILED = ctypes.c_void_p(-1).value

Shifts = npt.NDArray[np.int64]


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    size, at = ctypes.c_size_t, ctypes.c_void_p
    libc.mmap.restype = at
    libc.mmap.argtypes = [at, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [at, size]
    libc.madvise.argtypes = [at, size, ctypes.c_int]
    return libc


def _map(at: int | None, size: int, protection: int, flags: int, handle: int, offset: int) -> int:
    found = _libc().mmap(at, size, protection, flags, handle, offset)
    if found == _FAILED:
        raise OSError(ctypes.get_errno(), "no addresses or maps are left")
    return int(found)


def width(column: Column) -> int:
    """Bytes of one value of a column of fixed width."""
    return int(np.dtype(column.dtype).itemsize * math.prod(column.shape))


def shifts(column: Column, counts: npt.NDArray[np.int64]) -> Shifts | None:
    """By how much the rows of each shard are moved: int64 [shards]; None when by nothing.

    counts  rows of each shard
    """
    bytes_of = width(column)
    moved = _shifts(counts, _HUGE // math.gcd(_HUGE, bytes_of))
    small = int(np.median(counts)) * bytes_of < 2 * _HUGE if len(counts) else True
    if small or int(counts.sum() + moved[-1]) * bytes_of > _MOST - _HUGE:
        moved = _shifts(counts, mmap.PAGESIZE // math.gcd(mmap.PAGESIZE, bytes_of))
    return moved if moved.any() else None


def _shifts(counts: npt.NDArray[np.int64], step: int) -> Shifts:
    """So that every shard starts at a multiple of `step` rows."""
    moved = np.zeros(len(counts), np.int64)
    np.cumsum(-counts[:-1] % step, out=moved[1:])
    return moved


class Strip:
    """The addresses of one column. Owns them until `close`; `array` must not be used after it.

    rows    of the strip: those of the split and its shifts
    offset  where the column starts in its files, most often
    array   [rows, *shape], read only; only rows of mapped shards may be touched

    Raises OSError when there are no addresses (a limit of the process, too large a split).
    """

    def __init__(self, column: Column, rows: int, offset: int = 0) -> None:
        if sys.platform != "linux":
            raise OSError(0, "strips need Linux")
        self._width = width(column)
        size = _pages(max(1, rows * self._width))
        self._size = size + _HUGE
        if self._size > _MOST:
            raise OSError(0, "too large for a strip")
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self._reserved = _map(None, self._size, 0, flags, -1, 0)
        near = offset // mmap.PAGESIZE * mmap.PAGESIZE
        self._base = self._reserved + (near - self._reserved) % _HUGE
        self._end = self._base + size
        memory = (ctypes.c_char * size).from_address(self._base)
        flat: Array = np.frombuffer(
            memoryview(memory), column.dtype, rows * math.prod(column.shape)
        )
        flat.flags.writeable = False
        self.array: Array = flat.reshape(rows, *column.shape)

    def map(self, row: int, rows: int, handle: int, offset: int) -> None:
        """Rows row..row+rows-1 are in the file at `offset`, a multiple of the page size."""
        at, size = self._range(row, rows)
        _map(at, size, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_FIXED, handle, offset)
        _libc().madvise(at, size, _MADV_HUGEPAGE)  # a wish: what the kernel answers is no matter

    def copy(self, row: int, values: Array) -> None:
        """Rows from `row` on are these values [n, *shape]; they take memory of this process."""
        at, size = self._range(row, len(values))
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED
        _map(at, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
        whole = np.ascontiguousarray(values)
        ctypes.memmove(at, whole.ctypes.data, whole.nbytes)

    def clear(self, row: int, rows: int) -> None:
        """Nothing may be read there any more; memory and file are let go."""
        at, size = self._range(row, rows)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE | _MAP_FIXED
        _map(at, size, 0, flags, -1, 0)

    def close(self) -> None:
        if self._reserved:
            self.array = self.array[:0]
            _libc().munmap(self._reserved, self._size)
            self._reserved = 0

    def _range(self, row: int, rows: int) -> tuple[int, int]:
        at = self._base + row * self._width
        if not self._reserved or at % mmap.PAGESIZE or at + rows * self._width > self._end:
            raise AssertionError("a shard lies on whole pages of its own strip")
        return at, _pages(rows * self._width)


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
