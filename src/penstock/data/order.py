"""Law 6: which samples form global batch k, as pure functions with O(1) memory.

One epoch's order is a keyed permutation of 0..n-1, computed position by position: resuming at
90 % of an epoch costs what starting costs, and no rank holds a list of n numbers.

    key   = SHAKE-256 of "penstock-order-1/SOURCE/SEED/EPOCH", read as fourteen little-endian uint64
    sides = a = ceil(sqrt(n)), b = ceil(n / a); x = L * b + R with L < a, R < b
    walk  = rotate by key[12] mod n; twelve rounds, in turn L += F(R) mod a and R += F(L) mod b;
            again the rounds while the result is not below n; rotate by key[13] mod n
    F_i   = the finaliser of SplitMix64 on (value * golden + key[i]), its upper 32 bits scaled
            to the side

The rotations make every single sample equally likely at every position whatever n is; the rounds
break up neighbours. The definition is part of the format: to change it is to change every
resumed run, so a test holds it to known values.

A split that no node holds is shuffled in windows, so that an epoch reads each shard about once:

    blocks   rows in fixed blocks of c, the last one of n - (m - 1) c rows, m = ceil(n / c)
    stream   the full blocks in permuted order; the short one comes at a keyed place among them
    windows  the stream in pieces of w rows, each permuted by a key of its own
    epoch    the windows' rows, begun at a keyed place and read round

Reading round from a place that is equally likely everywhere makes every sample equally likely at
every position, whatever c, w and the short block are. A window of one block (w = c) keeps its rows
together as they lie in the source: there the rows themselves are turned round instead, so that
every window but the last is whole batches where c is (`Buckets` need that).

Sources: Black and Rogaway 2002, Ciphers with Arbitrary Finite Domains (generalised Feistel network
and cycle walking, eprint.iacr.org/2001/012); Steele, Lea and Flood 2014, Fast Splittable
Pseudorandom Number Generators (SplitMix64); Lemire 2019, Fast Random Integer Generation in an
Interval (scaling without division); Xu et al. 2022, In-Database Machine Learning with CorgiPile:
Stochastic Gradient Descent without Full Data Shuffle (blocks, then rows of several blocks).

Letters: n rows of the source, B global batch, W ranks, c rows of a block, w of a window.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.base.errors import BadInput

Rows = npt.NDArray[np.int64]
_U64 = npt.NDArray[np.uint64]

FORMAT = "penstock-order-1"
ROUNDS = 12  # eight leave a bias that triples of n = 6 show; twelve leave none we could find
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_MOST_ROWS = 1 << 62  # beyond, a side would not fit into 32 bits

HELD_BYTES = 1 << 36  # 64 GiB: a split up to here is held by a node, and shuffled as a whole
BLOCK_BYTES = 1 << 26  # 64 MiB, as much as a shard that Penstock writes
WINDOW_BLOCKS = 64  # 4 GiB of rows are mixed with each other


@dataclass(frozen=True, slots=True)
class Order:
    """Everything that the order depends on; two equal orders give equal batches anywhere.

    source     identity of the samples: digest of a split's content and its name
    rows       n
    batch      B, the global batch, the same at every world size
    shuffle    False: as they lie
    drop_last  True: an epoch ends with its last full batch
    block      c; 0: the whole is shuffled at once
    window     w, a multiple of c
    also       what else decides which samples are in a batch, such as "pad_last"
    """

    source: str
    rows: int
    batch: int
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = True
    block: int = 0
    window: int = 0
    also: str = ""

    @property
    def steps(self) -> int:
        """Global batches of one epoch."""
        return self.rows // self.batch if self.drop_last else -(-self.rows // self.batch)

    @property
    def fingerprint(self) -> int:
        """A positive int below 2**53 that differs when the order does."""
        parts = [self.source, self.rows, self.batch, self.seed, self.shuffle, self.drop_last]
        if self.block or self.also:
            parts += [self.block, self.window, self.also]
        return fingerprint("/".join(map(str, parts)))


def fingerprint(text: str) -> int:
    """A positive int below 2**53: 48 bits of the SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def window_of(rows: int, size: int) -> tuple[int, int]:
    """(c, w) by which a split is shuffled unless the user says otherwise; (0, 0): as a whole.

    size  bytes of the split in memory

    Decided by the dataset alone, never by the machine: 64 GiB are shuffled as a whole; beyond, in
    blocks of about 64 MiB (a power of two rows) and windows of 64 blocks.
    """
    if size <= HELD_BYTES:
        return 0, 0
    each = max(1, BLOCK_BYTES * rows // size)
    block = 1 << (each.bit_length() - 1)
    return block, block * WINDOW_BLOCKS


def batch_indices(order: Order, epoch: int, step: int) -> Rows:
    """Rows of global batch `step` of `epoch`, both from 0: int64 [B], fewer in a kept last one."""
    return order_indices(order, epoch, step * order.batch, (step + 1) * order.batch)


def order_indices(order: Order, epoch: int, start: int, stop: int) -> Rows:
    """Rows at positions start..stop-1 of an epoch: int64 [min(stop, n) - start]."""
    return order_rows(order, epoch, np.arange(start, min(stop, order.rows), dtype=np.int64))


def order_rows(order: Order, epoch: int, positions: Rows) -> Rows:
    """Rows at these positions (each 0..n-1) of an epoch: int64, same shape."""
    if not order.shuffle:
        return positions
    key = f"{order.source}/{order.seed}/{epoch}"
    if order.block:
        return _windowed(positions, order, key)
    return permute(positions, order.rows, key)


def _windowed(positions: Rows, order: Order, key: str) -> Rows:
    """See the top. Each call computes only what its positions need."""
    n, block, window = order.rows, order.block, order.window
    turns = _round_keys(f"{key}/windows")
    turn = int(turns[0]) % n
    apart = window > block
    places = (positions + turn) % n if apart else positions
    numbers = places // window
    mixed = np.empty_like(places)
    for number in np.unique(numbers).tolist():
        at = numbers == number
        first = number * window
        length = min(window, n - first)
        mixed[at] = first + permute(places[at] - first, length, f"{key}/window/{number}")
    full, short = divmod(n, block)
    before = int(turns[1]) % (full + 1) * block if short and apart else full * block
    in_short = (mixed >= before) & (mixed < before + short)
    mixed[mixed >= before + short] -= short
    number, offset = np.divmod(mixed, block)
    number[in_short] = 0
    rows = (permute(number, full, f"{key}/blocks") if full else number) * block + offset
    rows[in_short] = full * block + mixed[in_short] - before
    return rows if apart else (rows + turn) % n


def rank_slice(indices: Rows, rank: int, world_size: int) -> Rows:
    """A rank's contiguous part. Parts are equal where W divides; else the first are one longer.

    >>> rank_slice(np.arange(5), 0, 2).tolist(), rank_slice(np.arange(5), 1, 2).tolist()
    ([0, 1, 2], [3, 4])
    """
    part, longer = divmod(len(indices), world_size)
    start = rank * part + min(rank, longer)
    return indices[start : start + part + (rank < longer)]


def check_order(order: Order, world_size: int) -> None:
    """Raise BadInput for what no order can satisfy, naming both sides."""
    if order.batch < 1:
        raise BadInput(
            f"a batch size of {order.batch} is not positive",
            "Give one of at least 1.",
            batch_size=order.batch,
        )
    trains = order.shuffle or order.drop_last
    if trains and order.batch % world_size:
        raise BadInput(
            f"a global batch of {order.batch} does not divide by {world_size} ranks",
            f"Take a batch size that does, such as {_rounded(order.batch, world_size)}, or another "
            "number of ranks. Only shuffle=False with the last batch kept may be uneven.",
            batch_size=order.batch,
            world_size=world_size,
        )
    if order.block < 0 or (order.block and (order.window < 1 or order.window % order.block)):
        raise BadInput(
            f"a shuffle window of {order.window} rows is not whole blocks of {order.block}",
            "Give window_rows of at least 1.",
            window=order.window,
            block=order.block,
        )
    if not 0 < order.rows < _MOST_ROWS:
        raise BadInput(f"there are {order.rows} rows to order", "Give at least one row.")
    if order.steps == 0:
        raise BadInput(
            f"a global batch of {order.batch} is more than the {order.rows} rows there are",
            "Take a smaller batch size, or keep the incomplete batch with drop_last=False.",
            batch_size=order.batch,
            rows=order.rows,
        )


def _rounded(batch: int, world_size: int) -> int:
    return max(1, round(batch / world_size)) * world_size


def permute(positions: Rows, n: int, key: str) -> Rows:
    """Where a keyed permutation of 0..n-1 sends each position: int64, same shape.

    Every call sees only its positions; all of 0..n-1 together give each row exactly once.

    >>> sorted(permute(np.arange(10), 10, "any").tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    keys = _round_keys(key)
    before, after = np.uint64(int(keys[ROUNDS]) % n), np.uint64(int(keys[ROUNDS + 1]) % n)
    a = math.isqrt(n - 1) + 1
    b = -(-n // a)
    x = _rotate(positions.astype(np.uint64), before, n)
    x = _feistel(x, a, b, keys)
    outside = np.flatnonzero(x >= n)
    while outside.size:  # a * b is less than n + a: hardly any, and soon none
        x[outside] = _feistel(x[outside], a, b, keys)
        outside = outside[x[outside] >= n]
    return _rotate(x, after, n).astype(np.int64)


def _round_keys(key: str) -> _U64:
    raw = hashlib.shake_256(f"{FORMAT}/{key}".encode()).digest(8 * (ROUNDS + 2))
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64)


def _feistel(x: _U64, a: int, b: int, keys: _U64) -> _U64:
    left = x // np.uint64(b)
    right = x - left * np.uint64(b)
    for number in range(ROUNDS):
        if number % 2 == 0:
            _turn(left, _scaled(right, keys[number], a), a)
        else:
            _turn(right, _scaled(left, keys[number], b), b)
    left *= np.uint64(b)
    left += right
    return left


def _rotate(x: _U64, by: Any, size: int) -> _U64:
    """(x + by) mod size, where both are below size."""
    found = x.copy()
    _turn(found, by, size)
    return found


def _turn(x: _U64, by: Any, size: int) -> None:
    """The same, in place. Below 0 an unsigned number wraps round and is the greater one."""
    x += by
    np.minimum(x, x - np.uint64(size), out=x)


def _scaled(x: _U64, key: np.uint64, size: int) -> _U64:
    """A pseudorandom number below `size` (at most 2**32) for each x."""
    z = x * _GOLDEN
    z += key
    z ^= (rest := z >> np.uint64(30))
    z *= _MULTIPLY_1
    z ^= np.right_shift(z, np.uint64(27), out=rest)
    z *= _MULTIPLY_2
    z ^= np.right_shift(z, np.uint64(31), out=rest)
    z >>= np.uint64(32)
    z *= np.uint64(size)
    z >>= np.uint64(32)
    return z
