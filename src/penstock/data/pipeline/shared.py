"""Batches through shared memory: arrays lie in a memfd, their description beside them.

A worker writes a batch once into a segment and sends the segment's number (and, the first time,
its descriptor); the reader's arrays lie in the same memory. When the last of them is gone, the
segment is free and is used again, so its pages need not be made anew. Pickle (protocol 5, buffers
out of band) describes what is there: only between a process and its own workers, never in storage.
"""

from __future__ import annotations

import ctypes
import io
import mmap
import os
import pickle
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.base.errors import CannotTravel
from penstock.data.pipeline.tensors import mapped

_ALIGN = 64  # bytes: a cache line, and enough for every dtype
_LEAST = 1 << 16  # bytes of a segment


class _Blobs:
    """A list of bytes as two arrays, so that their bytes travel as an array's do."""

    def __init__(self, values: Sequence[bytes]) -> None:
        self._values = values

    def __reduce__(self) -> tuple[Any, ...]:
        sizes = np.fromiter(map(len, self._values), np.int64, len(self._values))
        return _split, (sizes, np.frombuffer(b"".join(self._values), np.uint8))


def _split(sizes: npt.NDArray[np.int64], data: npt.NDArray[np.uint8]) -> list[bytes]:
    ends = np.cumsum(sizes).tolist()
    view = memoryview(data.data)
    starts = [0, *ends[:-1]]
    return [view[a:b].tobytes() for a, b in zip(starts, ends, strict=True)] if ends else []


def _flat(value: Any) -> Any:
    """Lists of bytes and torch's tensors as arrays."""
    if isinstance(value, list) and value and all(isinstance(each, bytes) for each in value):
        return _Blobs(value)
    if hasattr(value, "numpy") and hasattr(value, "detach"):
        try:
            return value.detach().numpy()
        except (RuntimeError, TypeError):  # bfloat16 and the like: as torch pickles them
            return value
    return value


def described(batches: list[Any]) -> tuple[bytes, list[memoryview]]:
    """(description, what lies out of it). Raises CannotTravel."""
    buffers: list[pickle.PickleBuffer] = []
    try:
        flat = [mapped(batch, _flat) for batch in batches]
        head = pickle.dumps(flat, protocol=5, buffer_callback=buffers.append)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise CannotTravel(
            f"what a worker made cannot travel to the step: {error}",
            "Give arrays, numbers, text and containers of them, or use workers=0.",
        ) from None
    return head, [each.raw() for each in buffers]


class Segments:
    """A worker's memory. Owns the segments; they live until their last holder, here or there."""

    def __init__(self) -> None:
        self._all: list[tuple[int, mmap.mmap]] = []
        self._free: set[int] = set()

    def release(self, numbers: Sequence[int]) -> None:
        """Nobody reads these any more."""
        self._free.update(numbers)

    def write(self, batches: list[Any]) -> tuple[dict[str, Any], int | None]:
        """(where they lie, the descriptor of the segment where it is a new one)."""
        head, buffers = described(batches)
        places, size = _laid_out([len(head), *(each.nbytes for each in buffers)])
        number, handle = self._segment(size)
        memory = self._all[number][1]
        for piece, (start, length) in zip([memoryview(head), *buffers], places, strict=True):
            memory[start : start + length] = piece
        return {"segment": number, "bytes": len(memory), "places": places}, handle

    def _segment(self, size: int) -> tuple[int, int | None]:
        fitting = [n for n in self._free if len(self._all[n][1]) >= size]
        if fitting:
            number = min(fitting, key=lambda n: len(self._all[n][1]))
            self._free.discard(number)
            return number, None
        size = max(_LEAST, -(-size * 5 // 4 // mmap.PAGESIZE) * mmap.PAGESIZE)
        handle = os.memfd_create("penstock-batches", os.MFD_CLOEXEC)
        os.ftruncate(handle, size)
        self._all.append((handle, mmap.mmap(handle, size)))
        return len(self._all) - 1, handle


def _laid_out(lengths: Sequence[int]) -> tuple[list[tuple[int, int]], int]:
    places, end = [], 0
    for length in lengths:
        places.append((end, length))
        end = -(-(end + length) // _ALIGN) * _ALIGN
    return places, max(1, end)


class Reader:
    """A reader's side of one worker's segments.

    freed  called, from any thread, with a segment's number when its last array is gone
    """

    def __init__(self, freed: Callable[[int], object]) -> None:
        self._maps: dict[int, mmap.mmap] = {}
        self._freed = freed

    def read(self, where: dict[str, Any], handles: Sequence[int]) -> list[Any]:
        """The batches; their arrays lie in the segment. Closes the handles."""
        number = int(where["segment"])
        for handle in handles:
            self._maps[number] = mmap.mmap(handle, where["bytes"])
            os.close(handle)
        held = (ctypes.c_char * where["bytes"]).from_buffer(self._maps[number])
        weakref.finalize(held, self._freed, number).atexit = False
        view = memoryview(held).cast("B")
        head, *buffers = (view[start : start + length] for start, length in where["places"])
        return list(pickle.Unpickler(io.BytesIO(head), buffers=buffers).load())
