"""The scalars of a run as last told, for somebody who watches: cheap enough to ask for often."""

from __future__ import annotations

from pathlib import Path

from penstock.signals import segment
from penstock.signals.reader import read_segment
from penstock.signals.segment import Cursor


class Newest:
    """Of one rank; each look reads what its newest segment got since, and nothing older.

    folder  of the run's segments; may not exist yet
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self._folder = folder
        self._rank = rank
        self._path: Path | None = None
        self._cursor = Cursor()
        self._values: dict[str, float] = {}

    def look(self) -> dict[str, float]:
        """name -> value, in the order in which names were told first."""
        own = [p for p in segment.list_segments(self._folder) if segment.rank_of(p) == self._rank]
        if own and own[-1] != self._path:
            self._path, self._cursor = own[-1], Cursor()
        piece = read_segment(self._path, self._cursor) if self._path is not None else None
        for record in piece.records if piece is not None else ():
            if record.kind == segment.SCALAR:
                self._values[record.name] = record.value
        return dict(self._values)
