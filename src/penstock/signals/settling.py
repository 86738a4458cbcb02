"""Which values of a run are final enough to be forwarded to somebody who cannot take them back.

A (name, step) has settled when

- every rank of the newest generation that tells this name has told it for a later step, and
- those that never told it are 100 steps past it,

or when nothing more will come. Its value is then the reduced one (`reduce_scalars`): of the newest
generation that told it, the mean over ranks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.signals import segment
from penstock.signals.reader import read_segment
from penstock.signals.segment import Cursor

_PAST = 100  # steps after which a rank that never told a name counts as not telling it
_Told = dict[tuple[int, int], tuple[float, float]]  # (generation, rank) -> value, at


@dataclass(frozen=True, slots=True, order=True)
class Settled:
    """at: seconds since 1970, when a rank told it"""

    step: int
    name: str
    value: float
    at: float


class Settling:
    """Reads a run's segments as they grow; gives every (name, step) at most once, steps of a name
    rising.

    folder   of the run's segments; may not exist yet
    written  name -> highest step that the other side has already: nothing up to it is given
    spelled  our name of a scalar -> the name by which `written` knows it
    floor    nothing up to this step is given, whatever its name
    """

    def __init__(
        self,
        folder: Path,
        written: Mapping[str, int],
        spelled: Callable[[str], str] = lambda name: name,
        floor: int = -1,
    ) -> None:
        self._folder = folder
        self._spelled = spelled
        self._written = dict(written)
        self._floor = floor
        self._cursors: dict[str, Cursor] = defaultdict(Cursor)
        self._done: set[str] = set()
        self._generation = -1
        self._pending: dict[str, dict[int, _Told]] = defaultdict(lambda: defaultdict(dict))
        self._last_of_name: dict[tuple[int, str], int] = {}  # (rank, name), newest generation
        self._last: dict[int, int] = {}  # rank -> step, newest generation

    def take(self, final: bool = False, in_order: bool = False) -> list[Settled]:
        """What has settled since, by step, then name. `final`: all there is.

        in_order  for those who take no step after a later one: a step only once all of it has
                  settled, and all before it
        """
        self._read_new()
        told = [(step, name) for name, steps in self._pending.items() for step in steps]
        due = sorted(each for each in told if final or self._is_settled(each[1], each[0]))
        if in_order:
            waiting = set(told) - set(due)
            first = min((step for step, _ in waiting), default=None)
            due = [each for each in due if first is None or each[0] < first]
            self._floor = max(self._floor, *(step for step, _ in due)) if due else self._floor
        return [self._settle(step, name) for step, name in due]

    def _settle(self, step: int, name: str) -> Settled:
        told = self._pending[name].pop(step)
        theirs = self._spelled(name)
        self._written[theirs] = max(step, self._written.get(theirs, -1))
        newest = max(generation for generation, _ in told)
        kept = [told[key] for key in sorted(told) if key[0] == newest]
        return Settled(step, name, sum(one for one, _ in kept) / len(kept), kept[-1][1])

    def _read_new(self) -> None:
        for path in segment.list_segments(self._folder):
            if path.name in self._done:
                continue
            piece = read_segment(path, self._cursors[path.name])
            if piece is None:
                continue
            if piece.head.closed:
                self._done.add(path.name)
            generation, rank = piece.head.generation, piece.head.rank
            if generation > self._generation:
                self._generation = generation
                self._last, self._last_of_name = {}, {}
            if generation == self._generation:
                self._last.setdefault(rank, -1)
            for record in piece.records:
                if record.kind != segment.SCALAR:
                    continue
                if generation == self._generation:
                    self._last[rank] = max(self._last[rank], record.step)
                    self._last_of_name[rank, record.name] = record.step
                written = self._written.get(self._spelled(record.name), -1)
                if record.step > max(self._floor, written):
                    told = self._pending[record.name][record.step]
                    told[generation, rank] = (record.value, record.at)

    def _is_settled(self, name: str, step: int) -> bool:
        for rank, last in self._last.items():
            told = self._last_of_name.get((rank, name))
            if (told is None and last <= step + _PAST) or (told is not None and told <= step):
                return False
        return bool(self._last)
