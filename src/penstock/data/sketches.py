"""What is kept of many values in little memory: their distribution, and how many are distinct.

Both sketches merge, and merging gives the same bits in any order and grouping, so that statistics
do not depend on how rows were cut into units. Both are exact until they are full.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from penstock.data.columns import Array, Column

Counts = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

BUCKETS = 1024  # of a distribution
SMALLEST = 1024  # hashes of distinct values
_FINEST = 45  # bits of a float64 that are dropped: 128 buckets from one power of two to the next
_WORD = 8  # bytes
_LONGEST = 64  # bytes of a value that is hashed beside others
_ONES = np.uint64(2**64 - 1)


class Distribution:
    """A histogram whose buckets are as wide as their place demands: at most 1/128 of the value.

    The bucket of x is the upper bits of its float64: exponent and 7 bits of the mantissa. When
    more than 1024 buckets are filled, all are merged in pairs (one bit less) until they are not,
    which doubles the relative width. Filled buckets only become more, so the final width is a
    function of the values alone, not of the order of `add` and `merge`.
    Source: HdrHistogram's bucketing (Tene 2012); uniform collapse from UDDSketch (Epicoco, Melle,
    Cafaro, Pulimeno, Morleo 2020), which builds on DDSketch (Masson, Rim, Lee 2019).

    shift   bits that are dropped now
    keys    filled buckets, ascending int64: bits of |x| >> shift, for negative x its complement
    counts  int64, values in each
    """

    def __init__(
        self, shift: int = _FINEST, keys: Sequence[int] = (), counts: Sequence[int] = ()
    ) -> None:
        self.shift = shift
        self.keys: Counts = np.asarray(keys, np.int64)
        self.counts: Counts = np.asarray(counts, np.int64)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def add(self, numbers: Array) -> None:
        """Take finite numbers into account."""
        if numbers.size:
            self._take(*self._buckets(numbers))

    def _buckets(self, numbers: Array) -> tuple[Counts, Counts]:
        plain = np.ascontiguousarray(numbers.reshape(-1), np.float64)
        bits = np.abs(plain).view(np.int64) >> self.shift
        keys = np.where(plain < 0, ~bits, bits)
        low = int(keys.min())
        counts = np.bincount(keys - low)
        filled = np.flatnonzero(counts)
        return filled + low, counts[filled]

    def merge(self, other: Distribution) -> None:
        """Take all that another one has seen into account."""
        shift = max(self.shift, other.shift)
        keys = other.keys >> (shift - other.shift)
        self._coarser(shift)
        self._take(keys, other.counts)

    def _take(self, keys: Counts, counts: Counts) -> None:
        self.keys, self.counts = _summed(
            np.concatenate([self.keys, keys]), np.concatenate([self.counts, counts])
        )
        while len(self.keys) > BUCKETS:
            self._coarser(self.shift + 1)

    def _coarser(self, shift: int) -> None:
        if shift > self.shift:
            self.keys, self.counts = _summed(self.keys >> (shift - self.shift), self.counts)
            self.shift = shift

    def edges(self) -> tuple[Array, Array]:
        """Lowest and highest value of each filled bucket, float64."""
        beyond = np.where(self.keys < 0, ~self.keys, self.keys)
        near = (beyond << self.shift).view(np.float64)
        top = np.minimum((beyond + 1) << self.shift, np.float64(np.inf).view(np.int64))
        far = np.minimum(top.view(np.float64), np.finfo(np.float64).max)
        negative = self.keys < 0
        return np.where(negative, -far, near), np.where(negative, -near, far)

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """The value below which a share of all values lies: the middle of its bucket."""
        ends = np.cumsum(self.counts)
        at = np.searchsorted(ends, np.asarray(shares) * (ends[-1] - 1), side="right")
        low, high = self.edges()
        middle = np.where((low == 0) | (high == 0), 0.0, low / 2 + high / 2)
        return [float(middle[i]) for i in np.minimum(at, len(ends) - 1)]

    def below(self, limits: Sequence[float]) -> Array:
        """How many values lie below each limit, float64: a bucket that a limit cuts counts in
        proportion."""
        low, high = self.edges()
        found = []
        with np.errstate(over="ignore", invalid="ignore"):
            for limit in limits:
                part = np.clip((limit - low) / np.maximum(high - low, 5e-324), 0.0, 1.0)
                found.append(float((part * self.counts).sum()))
        return np.array(found)


class Even(Distribution):
    """A histogram whose buckets are all as wide: 2**shift. For whole numbers that are far from
    zero and near each other, as times are.

    Exact until 1024 different values; then buckets are merged in pairs as above. Where values lie
    all over their span, there are 512 to 1024 of them.

    keys  filled buckets, ascending int64: value >> shift
    """

    def __init__(
        self, shift: int = 0, keys: Sequence[int] = (), counts: Sequence[int] = ()
    ) -> None:
        super().__init__(shift, keys, counts)

    def _buckets(self, numbers: Array) -> tuple[Counts, Counts]:
        keys, counts = np.unique(numbers >> self.shift, return_counts=True)
        more = 0  # at once, so that a first block of many times is not merged pair by pair
        while 1 + np.count_nonzero(np.diff(keys >> more)) > BUCKETS:
            more += 1
        self._coarser(self.shift + more)
        return _summed(keys >> more, counts) if more else (keys, counts)

    def edges(self) -> tuple[Array, Array]:
        width = 2.0**self.shift
        low = self.keys.astype(np.float64) * width
        return low, low + (width if self.shift else 0.0)


def _summed(keys: Counts, counts: Counts) -> tuple[Counts, Counts]:
    """Each key once, ascending, with the sum of its counts."""
    unique, place = np.unique(keys, return_inverse=True)
    summed = np.zeros(len(unique), np.int64)
    np.add.at(summed, place, counts)
    return unique, summed


class Distinct:
    """How many different values there are: the 1024 smallest of their hashes.

    Exact up to 1024 (as far as 64 bits tell values apart), then (k-1)/u_k with u_k the k-th
    smallest hash as a part of 1; relative standard error 1/sqrt(k-2), 3 %.
    Source: Bar-Yossef, Jayram, Kumar, Sivakumar, Trevisan 2002; the unbiased form from Beyer,
    Haas, Reinwald, Sismanis, Gemulla 2007.
    """

    def __init__(self, smallest: Sequence[int] = ()) -> None:
        self.smallest: Hashes = np.asarray(smallest, np.uint64)

    def add(self, hashes: Hashes) -> None:
        """Take the hashes of values into account."""
        if len(self.smallest) == SMALLEST:
            hashes = hashes[hashes < self.smallest[-1]]
        if len(hashes):
            self.smallest = np.union1d(self.smallest, hashes)[:SMALLEST]

    def merge(self, other: Distinct) -> None:
        """Take all that another one has seen into account."""
        self.add(other.smallest)

    @property
    def exact(self) -> bool:
        """Whether `count` is no estimate."""
        return len(self.smallest) < SMALLEST

    @property
    def count(self) -> int:
        if self.exact:
            return len(self.smallest)
        return round((SMALLEST - 1) / (float(self.smallest[-1]) / 2.0**64))


def hash_values(array: pa.Array, column: Column) -> Hashes:
    """A 64-bit hash of each value that is there, of a number, text, bytes or time column.

    Text and bytes of at most 64 bytes: their length, mixed, then each 8 bytes of them (the last
    ones filled with zeros) joined by exclusive or and mixed, all values at once. Longer ones:
    XXH3-64.
    """
    array = array.drop_null()
    if column.kind in ("text", "bytes"):
        return _hash_bytes(array)
    if column.kind == "time":
        array = array.cast(pa.int32() if array.type.bit_width == 32 else pa.int64())
    return mix(words(array.to_numpy(zero_copy_only=False)))


def _hash_bytes(array: pa.Array) -> Hashes:
    _, offsets, data = array.buffers()
    if not len(array) or data is None:
        return mix(np.zeros(len(array), np.uint64))
    ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
    starts = ends[:-1] - ends[0]
    sizes = np.diff(ends)
    small = np.zeros(int(ends[-1] - ends[0]) + _WORD, np.uint8)  # a last word ends within it
    small[:-_WORD] = np.frombuffer(data, np.uint8, len(small) - _WORD, int(ends[0]))
    whole: Hashes = np.ndarray(len(small) - _WORD, "<u8", small, strides=(1,))  # at each byte
    found = mix(sizes.astype(np.uint64))
    least, most = int(sizes.min()), int(sizes.max())
    for at in range(0, min(most, _LONGEST), _WORD):
        if at + _WORD <= least and most <= _LONGEST:  # all values have all of it
            found = mix(found ^ whole[starts + at])
            continue
        rows = np.flatnonzero((sizes > at) & (sizes <= _LONGEST))
        left = np.minimum(sizes[rows] - at, _WORD).astype(np.uint64)
        kept = _ONES >> (np.uint64(64) - np.uint64(8) * left)
        found[rows] = mix(found[rows] ^ (whole[starts[rows] + at] & kept))
    for row in np.flatnonzero(sizes > _LONGEST).tolist():
        found[row] = xxhash.xxh3_64_intdigest(small[starts[row] : starts[row] + sizes[row]].data)
    return found


def words(numbers: Array) -> Hashes:
    """Numbers as 64 bits each, equal for equal ones of a dtype (0.0 and -0.0, every NaN)."""
    if numbers.dtype.kind == "f":
        wide = numbers.astype(np.float64) + 0.0
        wide[np.isnan(wide)] = np.nan
        return wide.view(np.uint64)
    return numbers.astype(np.uint64 if numbers.dtype.kind in "ub" else np.int64).view(np.uint64)


def mix(values: Hashes) -> Hashes:
    """A bijection of 64 bits that looks random. Source: splitmix64, Steele, Lea, Flood 2014."""
    with np.errstate(over="ignore"):
        found = values + np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(30)
        found *= np.uint64(0xBF58476D1CE4E5B9)
        found ^= found >> np.uint64(27)
        found *= np.uint64(0x94D049BB133111EB)
        found ^= found >> np.uint64(31)
    return found


def slices(array: pa.Array) -> list[memoryview]:
    """The bytes of each value of a string or binary array without gaps; nothing is copied."""
    _, offsets, data = array.buffers()
    if not len(array) or data is None:
        return [memoryview(b"")] * len(array)
    ends = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1].tolist()
    view = memoryview(data)
    return [view[start:stop] for start, stop in pairwise(ends)]
