"""Folders with a layout of their own, here or below a prefix of an object store."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from penstock.base.errors import BadInput
from penstock.data.formats import remote
from penstock.data.formats.files import File
from penstock.data.formats.listing import Given, is_pattern


@dataclass(frozen=True, slots=True)
class Folder:
    """root  an absolute path, or a URL up to its last slash, with its options"""

    root: str

    @classmethod
    def of(cls, given: Given) -> Folder | None:
        """The one folder that was given: a local one that is there, or a prefix that may be one."""
        only = given.entries[0]
        if len(given.entries) > 1:
            return None
        if remote.is_remote(only):
            return None if is_pattern(remote.without_options(only)) else cls(only)
        path = given.only()
        return cls(os.path.normpath(path)) if path is not None and path.is_dir() else None

    def __str__(self) -> str:
        return remote.without_options(self.root)

    @property
    def is_remote(self) -> bool:
        return remote.is_remote(self.root)

    def uri(self, name: str) -> str:
        """Where a file lies, by its name in the folder."""
        if not self.is_remote:
            return os.path.normpath(Path(self.root, name))
        plain = remote.without_options(self.root)
        return f"{plain.rstrip('/')}/{name}{self.root[len(plain) :]}"

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return remote.exists(self.uri(name)) if self.is_remote else Path(self.uri(name)).is_file()

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises OSError, or BadInput where it is not in the store."""
        if not self.is_remote:
            return Path(self.uri(name)).read_bytes()
        with remote.open_bytes(self.uri(name), 0) as stream:
            return stream.read()

    def files(self, below: str) -> list[File]:
        """All files in a folder of it, named from there on. Raises BadInput: none there."""
        return Given([self.uri(below)], "/").files()

    def missing(self, names: Iterable[str]) -> list[str]:
        """Where those of some files would lie that are not there."""
        wanted = sorted({self.uri(each) for each in names})
        if not self.is_remote:
            return [each for each in wanted if not Path(each).is_file()]
        there: set[str] = set()
        for first in {each.split("/", 1)[0] for each in names}:
            try:
                there.update(each.uri for each in self.files(first))
            except BadInput:  # nothing there
                continue
        return [each for each in wanted if each not in there]
