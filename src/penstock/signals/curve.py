"""One scalar of a run over its steps, read as it grows: what was read is not read again."""

from __future__ import annotations

from pathlib import Path

from penstock.signals import segment
from penstock.signals.reader import read_segment
from penstock.signals.segment import Cursor


class Curve:
    """The values of a name, reduced as by `reduce_scalars`: of a step the highest generation that
    told it, and the mean over its ranks.

    folder  of the run's segments; may not exist yet
    ranks   how many the run has: a step counts when all of them have told it
    """

    def __init__(self, folder: Path, name: str, ranks: int) -> None:
        self._folder, self._name, self._ranks = folder, name, ranks
        self._cursors: dict[str, Cursor] = {}
        self._done: set[str] = set()
        self._told: dict[int, tuple[int, dict[int, float]]] = {}  # step -> generation, by rank
        self.names: set[str] = set()  # all that were told

    def look(self, final: bool = False) -> list[tuple[int, float]]:
        """(step, value) so far, steps rising.

        final  nothing more will come: steps count that some ranks alone have told
        """
        for path in segment.list_segments(self._folder):
            if path.name not in self._done:
                self._read(path)
        return [
            (step, sum(values.values()) / len(values))
            for step, (_, values) in sorted(self._told.items())
            if final or len(values) >= self._ranks
        ]

    def _read(self, path: Path) -> None:
        piece = read_segment(path, self._cursors.setdefault(path.name, Cursor()))
        if piece is None:
            return
        if piece.head.closed:
            self._done.add(path.name)
        for record in piece.records:
            if record.kind != segment.SCALAR:
                continue
            self.names.add(record.name)
            if record.name == self._name:
                self._hear(piece.head.generation, piece.head.rank, record.step, record.value)

    def _hear(self, generation: int, rank: int, step: int, value: float) -> None:
        known = self._told.get(step)
        if known is None or known[0] < generation:
            self._told[step] = (generation, {rank: value})
        elif known[0] == generation:
            known[1][rank] = value
