"""Which chunks of all runs hold the rows of a shard.

All rows of a split have one order: by their keys, of equal keys by run and by place in it. Of a
chunk its first key is known, and one that none of its keys exceeds: the first of the next. So it is
known how many rows are surely below a key, and how many may be; rows of any two ranks lie in the
chunks between two such keys. Who reads these and sorts them finds its rows behind the first few.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from penstock.data.preparation import shelf

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """One split's rows in a run: what `put_run` told of them.

    schema  number of the run's schema
    where   what its rows are, for messages
    """

    blob: str
    schema: int
    where: str
    told: Mapping[str, Any]

    def chunks(self, first: int, end: int) -> list[Any]:
        """What `merging.py` needs to read some."""
        sizes, sums = self.told["sizes"], self.told["sums"]
        at = self.told["at"] + sum(sizes[:first])
        return [self.blob, self.schema, self.where, at, sizes[first:end], sums[first:end]]


@dataclass(frozen=True)
class Sorted:
    """A split whose rows lie in runs: a heap as `storing.py` has them."""

    name: str
    parts: Sequence[Part]

    @property
    def rows(self) -> int:
        return sum(sum(part.told["rows"]) for part in self.parts)

    def payloads(self, step: int) -> Iterable[dict[str, Any]]:
        """One per shard of `step` rows: "runs", chunks of each run, "skip": rows that come before
        the shard's own in these; the rest as `shelf.shard` has it."""
        total = self.rows
        cuts = _Cuts(self.parts)
        for start in range(0, total, step):
            rows = min(step, total - start)
            more, blocks = shelf.spread(start, rows, total)
            skip, runs = cuts.between(start, start + rows + more)
            yield {"rows": rows, "more": more, "blocks": blocks, "skip": skip, "runs": runs}


class Layout:
    """Where the rows of all units lie.

    results  what `write_units` told, of one unit at least
    names    of the splits in their order, [] where only the data tells
    Its `heaps` are the splits; `keys` is one of all keys, where the splits do not go by these, else
    None; `schemas` those of all runs, in hexadecimal.
    """

    def __init__(self, results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
        splits: dict[str, list[Part]] = {name: [] for name in names}
        keys: list[Part] = []
        self._schemas: dict[str, int] = {}
        for result in results:
            for (name, _), told in zip(result["splits"], result["parts"], strict=True):
                splits.setdefault(name, []).append(self._part(result, result["where"], told))
            if (alone := result["keys"]) is not None:
                keys.append(self._part(alone, result["where"], alone["parts"][0]))
        order = names or sorted(splits)
        self.heaps = [Sorted(name, splits[name]) for name in order]
        self.keys = Sorted("", keys) if keys else None

    def _part(self, run: Mapping[str, Any], where: str, told: Mapping[str, Any]) -> Part:
        schema = self._schemas.setdefault(run["schema"], len(self._schemas))
        return Part(run["blob"], schema, where, told)

    @property
    def schemas(self) -> list[str]:
        return list(self._schemas)


class _Cuts:
    """Keys are counted through, those that begin or end a chunk."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = [part for part in parts if part.told["rows"]]
        known = sorted({key for part in self._parts for key in part.told["keys"]})
        code = {key: number for number, key in enumerate(known)}
        ends = [np.array([code[key] for key in part.told["keys"]]) for part in self._parts]
        self._lows: list[Codes] = [each[:-1] for each in ends]
        self._highs: list[Codes] = [each[1:] for each in ends]
        self._least = np.array([each[0] for each in ends], np.int64)
        self._greatest = np.array([each[-1] for each in ends], np.int64)
        rows = np.array([n for part in self._parts for n in part.told["rows"]], np.int64)
        self._touched = _sums(self._lows, rows, len(known))
        self._below = _sums(self._highs, rows, len(known))

    def between(self, first: int, end: int) -> tuple[int, list[list[Any]]]:
        """(how many rows before `first` are read, too; the chunks of each run)."""
        low = int(np.searchsorted(self._touched, first, side="right")) - 1
        high = int(np.searchsorted(self._below, end, side="left"))
        runs = []
        for number in np.flatnonzero((self._greatest >= low) & (self._least < high)).tolist():
            start = int(np.searchsorted(self._highs[number], low, side="left"))
            stop = int(np.searchsorted(self._lows[number], high, side="left"))
            if start < stop:
                runs.append(self._parts[number].chunks(start, stop))
        return first - int(self._below[low]), runs


def _sums(codes: Sequence[Codes], rows: Codes, many: int) -> Codes:
    """For each key, and for what exceeds all, the rows of the chunks with smaller codes."""
    whole = np.concatenate(codes) if codes else np.zeros(0, np.int64)
    counts = np.bincount(whole, rows, many).astype(np.int64)
    return np.concatenate([[0], np.cumsum(counts)])
