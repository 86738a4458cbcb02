"""A page of shared memory between an agent and the ranks of one gang.

int64 words: what the agent wants (a step at which all save, one at which all keep their state in
memory, one at which all drain), and per rank how far it is, what it does and since when. Plain
aligned stores; each word has one writer.

    of a rank: step | time of the last sign of life and the phase that began | 6 longest stretches
"""

from __future__ import annotations

import mmap
import os

_WANTS = 8  # words before the ranks' own
_PER_RANK = 8
_SAVE_AT, _DRAIN_AT, _KEEP_AT = 0, 1, 2
_MARK, _LONGEST = 1, 1  # of a rank's own words; the first phase has no longest stretch
_PHASE = 0xF  # the low bits of a mark: 16 ns of the time are not missed

PHASES = ("starting", "compute", "data", "checkpoint", "evaluate", "publish", "after")
STARTING, COMPUTE, DATA, CHECKPOINT, EVALUATE, PUBLISH, AFTER = range(len(PHASES))


class Words:
    """The page. The agent creates it; ranks open the descriptor they were given."""

    def __init__(self, fd: int, ranks: int) -> None:
        self.fd = fd
        self.ranks = ranks
        self._map = mmap.mmap(fd, self.nbytes(ranks))
        self._words = memoryview(self._map).cast("q")

    @staticmethod
    def nbytes(ranks: int) -> int:
        """Of the page of so many ranks."""
        return (_WANTS + _PER_RANK * ranks) * 8

    @classmethod
    def create(cls, ranks: int) -> Words:
        fd = os.memfd_create("penstock-words", os.MFD_CLOEXEC)
        os.ftruncate(fd, cls.nbytes(ranks))
        return cls(fd, ranks)

    @property
    def save_at(self) -> int:
        """Step after which every rank saves; 0: none is wanted."""
        return self._words[_SAVE_AT]

    @save_at.setter
    def save_at(self, step: int) -> None:
        self._words[_SAVE_AT] = step

    @property
    def drain_at(self) -> int:
        """Step after which every rank saves and leaves; 0: none is wanted."""
        return self._words[_DRAIN_AT]

    @drain_at.setter
    def drain_at(self, step: int) -> None:
        self._words[_DRAIN_AT] = step

    @property
    def keep_at(self) -> int:
        """Step after which every rank keeps its state in memory; 0: none is wanted."""
        return self._words[_KEEP_AT]

    @keep_at.setter
    def keep_at(self, step: int) -> None:
        self._words[_KEEP_AT] = step

    def set_step(self, rank: int, step: int) -> None:
        self._words[_WANTS + rank * _PER_RANK] = step

    def steps(self) -> list[int]:
        """The last completed step of each rank."""
        return [self._words[_WANTS + rank * _PER_RANK] for rank in range(self.ranks)]

    def set_mark(self, rank: int, phase: int, at: int) -> None:
        """A sign of life, in one store, so that phase and time belong together.

        at  nanoseconds of the monotonic clock, which all processes of a machine share
        """
        self._words[_WANTS + rank * _PER_RANK + _MARK] = at & ~_PHASE | phase

    def mark(self, rank: int) -> tuple[int, int]:
        """(phase, nanoseconds) of the last sign of life; (STARTING, 0) before the first."""
        word = self._words[_WANTS + rank * _PER_RANK + _MARK]
        return word & _PHASE, word & ~_PHASE

    def set_longest(self, rank: int, phase: int, span: int) -> None:
        """Nanoseconds of the longest recent stretch of a phase without a sign; not of STARTING."""
        self._words[_WANTS + rank * _PER_RANK + _LONGEST + phase] = span

    def longest(self, rank: int) -> dict[str, float]:
        """phase -> seconds"""
        first = _WANTS + rank * _PER_RANK + _LONGEST
        return {PHASES[i]: self._words[first + i] / 1e9 for i in range(1, len(PHASES))}

    def close(self) -> None:
        self._words.release()
        self._map.close()
        os.close(self.fd)
