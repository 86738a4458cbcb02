"""Random numbers of a sample: a function of (source, seed, epoch, row), whoever draws them.

Philox is counter-based: the key is the stream's, the counter says where in it one is. The upper
two of the counter's four words are the row and the epoch, so every sample has 2**128 blocks of its
own, and nothing is carried from one sample to the next.

    key      first 16 bytes of SHA-256 of "penstock-random-1/SOURCE/SEED", little-endian
    counter  row * 2**128 + epoch * 2**192

Source: Salmon, Moraes, Dror and Shaw 2011, Parallel Random Numbers: As Easy as 1, 2, 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

FORMAT = "penstock-random-1"


class Randoms(Sequence[np.random.Generator]):
    """Generators of some samples, each made when it is asked for, in its first state.

    rows, epochs  of the samples
    """

    def __init__(self, key: int, rows: Sequence[int], epochs: Sequence[int]) -> None:
        self._key, self._rows, self._epochs = key, rows, epochs

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> np.random.Generator:  # type: ignore[override]
        return generator(self._key, self._rows[i], self._epochs[i])


def stream_key(source: str, seed: int) -> int:
    """The key of all samples of a source."""
    digest = hashlib.sha256(f"{FORMAT}/{source}/{seed}".encode()).digest()
    return int.from_bytes(digest[:16], "little")


def generator(key: int, row: int, epoch: int) -> np.random.Generator:
    """The generator of one sample."""
    return np.random.Generator(np.random.Philox(key=key, counter=(epoch << 192) + (row << 128)))


def seed_of(key: int, row: int, epoch: int) -> int:
    """One number below 2**63 for generators that take a seed: Python's, NumPy's global, torch's."""
    return int(generator(key, row, epoch).integers(1 << 63))
