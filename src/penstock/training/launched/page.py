"""What launched ranks of one machine share: a page of words, and a file each: who it is."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from penstock.base import process
from penstock.jobs.words import Words


def open_words(folder: Path, ranks: int) -> Words:
    """The page of a gang; whoever comes first makes it."""
    fd = os.open(folder / "words", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.ftruncate(fd, Words.nbytes(ranks))
    return Words(fd, ranks)


def announce(folder: Path, rank: int, stacks: Path, folders: list[str]) -> Path:
    """Say that this process is a rank; until the file is removed.

    stacks   where it writes its stacks when it is asked
    folders  of its project's sources
    """
    me = process.Identity.mine()
    told = {"pid": me.pid, "started": me.started, "stacks": str(stacks), "folders": folders}
    file = folder / f"rank-{rank}.json"
    draft = file.with_suffix(".new")
    draft.write_text(json.dumps(told))
    draft.replace(file)
    return file


def announced(folder: Path) -> dict[int, Path]:
    """rank -> its file"""
    files = folder.glob("rank-*.json")
    return {int(file.stem.removeprefix("rank-")): file for file in files}


@dataclass(frozen=True)
class Neighbour:
    """A rank as its file says; see `jobs.agent.taking.Watched`."""

    file: Path
    pid: int
    started: int
    stacks: Path
    folders: list[str]

    @classmethod
    def read(cls, file: Path) -> Neighbour:
        """Raises FileNotFoundError once it took its leave."""
        told = json.loads(file.read_text())
        return cls(file, told["pid"], told["started"], Path(told["stacks"]), told["folders"])

    @property
    def dead(self) -> bool:
        return process.start_time(self.pid) != self.started

    @property
    def told_end(self) -> bool:
        return not self.file.exists()

    def end(self, by: int) -> None:
        """Send it a signal that is to end it."""
        if not self.dead:
            process.kill_quietly(self.pid, by)
            process.kill_quietly(self.pid, signal.SIGCONT)  # a stopped one hears nothing else
