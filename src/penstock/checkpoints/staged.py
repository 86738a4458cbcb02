"""Checkpoints on this machine's disk: on their way to a far store, and kept to be read again.

blobs/…                        parts, under the digests that they have in the far store
notes/RUN/GANG-STEP-RANK.json  a part that no row refers to yet, with all that its row will need
notes/RUN/….stored.json        the same, once the part is in the far store
limit                          bytes that the parts may take, where a setting says so

A note is written before its part becomes visible, so that nobody takes the part for a copy that may
go. It is removed by the run's controller, once the row is committed or it is known that none will
be. So whoever comes next, after any death, reads from the notes what is left to do. Only whoever
holds the run's lease commits: a writer that woke up late stores bytes that nobody refers to.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from penstock.base.errors import NotFound
from penstock.base.files import os_errors, sync_folder
from penstock.blobs import Blobs, Stat, open_blobs
from penstock.checkpoints.sidecar import slot_of
from penstock.checkpoints.writer import begin

_SHARE = 4  # without a setting the parts take a fourth of what is free
_DRAFT, _STORED = ".draft", ".stored.json"
Key = tuple[int, int]  # gang, step


class Name(NamedTuple):
    """Of a note; stored: its part is in the far store."""

    gang: int
    step: int
    rank: int
    stored: bool

    @property
    def key(self) -> Key:
        return self.gang, self.step


@dataclass(frozen=True, slots=True)
class Note:
    """body  what `handle` answers of the part, with what else its commit needs
    at    when it was written, in seconds since 1970
    """

    name: Name
    body: dict[str, Any]
    at: float

    @property
    def key(self) -> Key:
        return self.name.key

    @property
    def step(self) -> int:
        return self.name.step

    @property
    def rank(self) -> int:
        return self.name.rank

    @property
    def stored(self) -> bool:
        return self.name.stored

    @property
    def blob(self) -> str:
        digest: str = self.body["part"]["blob"]
        return digest


class Staged:
    """The folder of one home. Safe for several processes; a run's notes have one writer, its
    checkpoint writer, and are removed by its controller."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._notes = root / "notes"
        self._elsewhere: dict[tuple[str, Name], Note] = {}
        self.blobs: Blobs = open_blobs(f"file://{root / 'blobs'}")

    @property
    def is_used(self) -> bool:
        """False where a setting gives them no room."""
        return self._limit(0) > 0

    # -- a part comes, reaches the store, and is committed --------------------------------------

    def stage(
        self, run_id: str, message: Mapping[str, Any], buffers: Mapping[str, memoryview]
    ) -> Note:
        """Write the part of one slot to disk, and note it. Durable on return.

        message  as of `handle`, with "gang" and "extra"
        What is noted already stays as it is. Raises DiskFull, ReadOnly, Unavailable, BadInput.
        """
        name = Name(message["gang"], message["step"], message["rank"], False)
        for each in (name, name._replace(stored=True)):
            if (known := self._noted_as(run_id, each)) is not None:
                return known
        began = time.thread_time()
        begun, part = begin(slot_of(message["slot"], buffers), message["index"], self.blobs)
        about = {"gang": name.gang, "step": name.step, "rank": name.rank}
        body = {**about, "part": part, "extra": message["extra"]}
        note = Note(name, {**body, "seconds": time.thread_time() - began}, time.time())
        try:
            self._write(self._path(run_id, *name), note.body)
            begun.finish()
        except BaseException:
            begun.drop()
            self.drop(run_id, [name])
            raise
        return note

    def add(self, run_id: str, body: Mapping[str, Any]) -> None:
        """Count a part as noted that went to the far store directly, for want of room here. Only
        this object knows of it.

        body  as a note's, with "gang", "step", "rank"
        """
        name = Name(body["gang"], body["step"], body["rank"], True)
        self._elsewhere[run_id, name] = Note(name, dict(body), time.time())

    def stored(self, run_id: str, name: Name) -> None:
        """Its part is in the far store."""
        with os_errors("noting a checkpoint", self._notes), suppress(FileNotFoundError):
            there = self._path(run_id, *name._replace(stored=True))
            self._path(run_id, *name).rename(there)

    def drop(self, run_id: str, names: Iterable[Name]) -> None:
        """Nothing more is to become of them; their parts stay as copies, while there is room."""
        for name in names:
            for stored in (False, True):
                self._path(run_id, *name._replace(stored=stored)).unlink(missing_ok=True)
            self._elsewhere.pop((run_id, name._replace(stored=True)), None)
        with suppress(OSError):
            (self._notes / run_id).rmdir()  # the last one is gone

    def has(self, run_id: str, name: Name) -> bool:
        """Whether something is still to become of it."""
        found = (self._path(run_id, *name._replace(stored=stored)) for stored in (False, True))
        return any(path.exists() for path in found)

    # -- looking ---------------------------------------------------------------------------------

    def names(self, run_id: str) -> list[Name]:
        """What is noted, by gang, step and rank. Reads no note."""
        elsewhere = (name for run, name in self._elsewhere if run == run_id)
        here = (_name_of(path) for path in _files(self._notes / run_id))
        return sorted({(name.key, name.rank): name for name in (*elsewhere, *here)}.values())

    def notes(self, run_id: str) -> list[Note]:
        """By gang, step and rank."""
        return [note for name in self.names(run_id) if (note := self._noted_as(run_id, name))]

    def whole(self, run_id: str) -> list[list[Note]]:
        """The checkpoints of which every rank's part is noted, oldest first; parts by rank."""
        return [found for group in self._groups(run_id) if (found := self._whole(run_id, group))]

    def arrived(self, run_id: str) -> list[Note] | None:
        """The oldest whole one whose parts are all in the far store."""
        for group in self._groups(run_id):
            if all(name.stored for name in group) and (found := self._whole(run_id, group)):
                return found
        return None

    def is_empty(self, run_id: str) -> bool:
        return not self.names(run_id)

    def _groups(self, run_id: str) -> list[list[Name]]:
        return [list(group) for _, group in groupby(self.names(run_id), lambda name: name.key)]

    def _whole(self, run_id: str, group: list[Name]) -> list[Note] | None:
        notes = [note for name in group if (note := self._noted_as(run_id, name))]
        return notes if notes and len(notes) == notes[0].body["part"]["world_size"] else None

    def _noted_as(self, run_id: str, name: Name) -> Note | None:
        return self._elsewhere.get((run_id, name)) or self._read(self._path(run_id, *name))

    # -- room ------------------------------------------------------------------------------------

    def make_room(self, nbytes: int) -> bool:
        """Let go of the oldest copies until so many bytes fit. False where they do not: what is
        noted stays."""
        used = sum(each.size for each in self.blobs.list())
        excess = used + nbytes - self._limit(used)
        if excess <= 0:
            return True
        for copy in sorted(self.copies(), key=lambda copy: copy.modified):
            if excess > 0:
                self.remove(copy.digest)
                excess -= copy.size
        return excess <= 0

    def remove(self, digest: str) -> bool:
        """A copy, which the far store has too. False when it is not there."""
        try:
            path = self.blobs.path(digest)
        except NotFound:
            return False
        assert path is not None  # a folder has files
        path.unlink(missing_ok=True)
        return True

    def runs(self) -> list[str]:
        """Those that have notes."""
        return [folder.name for folder in self._folders()]

    def forget(self, run_id: str) -> None:
        """Nothing will become of what a run has noted."""
        shutil.rmtree(self._notes / run_id, ignore_errors=True)

    def copies(self, but_of: Iterable[str] = ()) -> list[Stat]:
        """What no note keeps.

        but_of  runs whose notes do not count
        """
        noted = self._noted(but_of)
        return [copy for copy in self.blobs.list() if copy.digest not in noted]

    def _limit(self, used: int) -> int:
        with suppress(OSError, ValueError):
            return int((self._root / "limit").read_text())
        there = next(each for each in (self._root, *self._root.parents) if each.exists())
        return (used + shutil.disk_usage(there).free) // _SHARE

    def _noted(self, but_of: Iterable[str]) -> set[str]:
        runs = set(self.runs()) - set(but_of)
        return {note.blob for run_id in runs for note in self.notes(run_id)}

    def _folders(self) -> list[Path]:
        return [path for path in _listed(self._notes) if path.is_dir()]

    # -- files -----------------------------------------------------------------------------------

    def _path(self, run_id: str, gang: int, step: int, rank: int, stored: bool) -> Path:
        return self._notes / run_id / f"{gang}-{step}-{rank}{_STORED if stored else '.json'}"

    def _write(self, path: Path, body: dict[str, Any]) -> None:
        draft = path.with_name(path.name + _DRAFT)
        with os_errors("noting a checkpoint", self._notes):
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("w") as stream:
                json.dump(body, stream)
                stream.flush()
                os.fsync(stream.fileno())
            draft.rename(path)
            sync_folder(path.parent)

    def _read(self, path: Path) -> Note | None:
        """None when it is not there, or is not whole."""
        try:
            return Note(_name_of(path), json.loads(path.read_text()), path.stat().st_mtime)
        except (OSError, ValueError):
            return None


def _name_of(path: Path) -> Name:
    gang, step, rank = path.name.split(".", 1)[0].split("-")
    return Name(int(gang), int(step), int(rank), path.name.endswith(_STORED))


def _files(folder: Path) -> list[Path]:
    return [path for path in _listed(folder) if path.suffix == ".json"]


def _listed(folder: Path) -> list[Path]:
    with suppress(FileNotFoundError), os_errors("looking for checkpoints", folder):
        return list(folder.iterdir()) if folder.is_dir() else []
    return []
