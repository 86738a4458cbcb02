"""Taking the stacks of ranks: each is asked by a signal, and appends them to a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from penstock.base import process
from penstock.jobs import stacks


class Watched(Protocol):
    """A rank, as whoever watches it knows it.

    told_end  it took its leave: what it does now is no step of the gang's
    stacks    the file into which it writes its stacks when it is asked
    folders   of the project's sources
    """

    @property
    def pid(self) -> int | None: ...
    @property
    def dead(self) -> bool: ...
    @property
    def told_end(self) -> bool: ...
    @property
    def stacks(self) -> Path: ...
    @property
    def folders(self) -> list[str]: ...


class Taking:
    """Of one gang, as often as it is late. `ask`, then look at `is_done` now and then."""

    def __init__(self, ranks: Mapping[int, Watched]) -> None:
        self._ranks = ranks
        self._asked: dict[int, int] = {}  # rank -> bytes of its file before it was asked
        self._sizes: dict[int, int] = {}

    def ask(self) -> None:
        """All ranks for their stacks; not one that has no handler yet, which would die of it, nor
        one that is stopped: it answers no signal before it goes on."""
        self._asked, self._sizes = {}, {}
        for rank, each in self._ranks.items():
            if each.pid is None or each.dead:
                continue
            told = process.status(each.pid)
            if process.handles(told, stacks.SIGNAL) and not process.is_stopped(told):
                self._asked[rank] = self._size(rank)
                process.kill_quietly(each.pid, stacks.SIGNAL)

    def is_done(self) -> bool:
        """Whether every file grew, and not since the last look, but for ranks that cannot."""
        before, self._sizes = self._sizes, {rank: self._size(rank) for rank in self._asked}
        return before == self._sizes and all(
            self._sizes[rank] > size or self._is_stopped(rank) for rank, size in self._asked.items()
        )

    def read(self, rank: int) -> str:
        """What a rank wrote of its stacks; "" when it could not answer."""
        path = self._ranks[rank].stacks
        if rank not in self._asked or not path.exists():
            return ""
        with path.open("rb") as stream:
            stream.seek(self._asked[rank])
            return stream.read().decode(errors="replace")

    def _size(self, rank: int) -> int:
        path = self._ranks[rank].stacks
        return path.stat().st_size if path.exists() else 0

    def _is_stopped(self, rank: int) -> bool:
        pid = self._ranks[rank].pid
        return pid is not None and process.is_stopped(process.status(pid))
