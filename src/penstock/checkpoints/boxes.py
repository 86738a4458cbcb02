"""Boxes of a tensor: what a shard is, and how bytes of one sharding get into another. Pure.

Everything is counted in elements, in row-major order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """The elements [offset, offset + size) in every dimension of a tensor."""

    offsets: Shape
    sizes: Shape

    @property
    def volume(self) -> int:
        """How many elements it has."""
        return math.prod(self.sizes)

    @property
    def slices(self) -> tuple[slice, ...]:
        """For indexing the tensor."""
        pairs = zip(self.offsets, self.sizes, strict=True)
        return tuple(slice(offset, offset + size) for offset, size in pairs)

    def meet(self, other: Box) -> Box | None:
        """What both have; None where that is nothing."""
        lows, sizes = [], []
        for a, n, b, m in zip(self.offsets, self.sizes, other.offsets, other.sizes, strict=True):
            low, high = max(a, b), min(a + n, b + m)
            if high <= low:
                return None
            lows.append(low)
            sizes.append(high - low)
        return Box(tuple(lows), tuple(sizes))

    def seen_from(self, origin: Shape) -> Box:
        """The same elements where `origin` is zero."""
        return Box(tuple(a - b for a, b in zip(self.offsets, origin, strict=True)), self.sizes)

    def moved(self, by: Shape) -> Box:
        """The same size, further on."""
        return Box(tuple(a + b for a, b in zip(self.offsets, by, strict=True)), self.sizes)


def whole(shape: Shape) -> Box:
    """All of a tensor."""
    return Box((0,) * len(shape), shape)


def span(shape: Shape, box: Box) -> tuple[int, int]:
    """[first, end) of the run of elements from the box's first to its last one.

    box  not empty, inside the shape

    >>> span((4, 5), Box((1, 2), (2, 2)))
    (7, 14)
    """
    first = last = 0
    for count, offset, size in zip(shape, box.offsets, box.sizes, strict=True):
        first = first * count + offset
        last = last * count + offset + size - 1
    return first, last + 1


def is_run(shape: Shape, box: Box) -> bool:
    """Whether the box's elements follow each other without a gap."""
    first, end = span(shape, box)
    return end - first == box.volume


def run_boxes(shape: Shape, start: int, stop: int) -> Iterator[tuple[int, Box]]:
    """The boxes that a run of elements consists of, each with where in the run it begins.

    At most two for each dimension but the first, and one more.

    >>> [(at, box.offsets, box.sizes) for at, box in run_boxes((3, 4), 2, 11)]
    [(0, (0, 2), (1, 2)), (2, (1, 0), (1, 4)), (6, (2, 0), (1, 3))]
    """
    yield from _run_boxes(shape, start, stop, ())


def _run_boxes(shape: Shape, start: int, stop: int, head: Shape) -> Iterator[tuple[int, Box]]:
    if stop <= start:
        return
    ones = (1,) * len(head)
    if not shape:
        yield 0, Box(head, ones)
        return
    inner = math.prod(shape[1:])
    first, last = start // inner, stop // inner  # rows: whole ones are those between
    begin, end = start - first * inner, stop - last * inner
    if first == last:
        yield from _run_boxes(shape[1:], begin, end, (*head, first))
        return
    at = 0
    if begin:
        yield from _run_boxes(shape[1:], begin, inner, (*head, first))
        at, first = inner - begin, first + 1
    if first < last:
        rest = shape[1:]
        yield at, Box((*head, first, *(0 for _ in rest)), (*ones, last - first, *rest))
        at += (last - first) * inner
    if end:
        for more, box in _run_boxes(shape[1:], 0, end, (*head, last)):
            yield at + more, box


def local_box(
    shape: Shape, mesh: Sequence[int], dims: Sequence[int | None], coordinate: Sequence[int]
) -> Box:
    """The part of a tensor that one place of a mesh holds; it may be empty.

    mesh        its shape
    dims        for each of its dimensions, which dimension of the tensor it cuts; None: replicates
    coordinate  of the place

    A dimension of n elements is cut over m places as `torch.chunk` does it: ceil(n / m) for each
    as long as there are some. A dimension that is cut twice is cut from the outside in.

    >>> [local_box((5,), [2], [0], [place]).sizes for place in range(2)]
    [(3,), (2,)]
    """
    offsets, sizes = [0] * len(shape), list(shape)
    for count, dim, place in zip(mesh, dims, coordinate, strict=True):
        if dim is None:
            continue
        each = -(-sizes[dim] // count)
        low = min(sizes[dim], each * place)
        offsets[dim] += low
        sizes[dim] = min(each, sizes[dim] - low)
    return Box(tuple(offsets), tuple(sizes))


def replica(
    mesh: Sequence[int], dims: Sequence[int | None], coordinate: Sequence[int]
) -> tuple[int, int]:
    """(number, count) of a place among those that hold the same part.

    >>> replica([2, 3], [None, 0], [1, 2])
    (1, 2)
    """
    number, count = 0, 1
    for size, dim, place in zip(mesh, dims, coordinate, strict=True):
        if dim is None:
            number, count = number * size + place, count * size
    return number, count


def covers(shape: Shape, boxes: Sequence[Box]) -> bool:
    """Whether the boxes, none of them empty, have every element of the shape exactly once."""
    if sum(box.volume for box in boxes) != math.prod(shape):
        return False
    everything = whole(shape)
    ordered = list(boxes)
    return all(everything.meet(box) == box for box in ordered) and not any(
        one.meet(other) for n, one in enumerate(ordered) for other in ordered[:n]
    )
