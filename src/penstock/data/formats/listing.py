"""Which files a path, glob, list or URL means, in one order, with every missing one named.

Names are relative to the folder, or to the part of a glob before its first pattern; in a list they
begin with the entry's last part, or with the entry as given where two end alike. Hidden files and
marker files (`_SUCCESS`, `_metadata`) are passed over.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.base.errors import BadInput
from penstock.base.files import from_os_error
from penstock.base.nearest import nearest
from penstock.data.formats import remote
from penstock.data.formats.files import File

_MARKERS = {"_SUCCESS", "_metadata", "_common_metadata"}
_SHOWN = 20  # missing files in an error's text; its facts have all


class Given:
    """What a user named, made independent of the working directory.

    entries  paths, globs or URLs as given
    base     folder that relative ones start from
    """

    def __init__(self, entries: Sequence[str], base: str) -> None:
        self.entries = list(entries)
        self.base = base
        self._first: list[File] | None = None
        lasts = [_last(each) for each in self.entries]
        self._alike = len(set(lasts)) < len(lasts)

    def spec(self) -> dict[str, Any]:
        return {"entries": self.entries, "base": self.base}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Given:
        return cls(spec["entries"], spec["base"])

    def __str__(self) -> str:
        more = len(self.entries) - 1
        return self.entries[0] + (f" and {more} more" if more else "")

    def only(self) -> Path | None:
        """The one local path that was given, where it is one and exists."""
        if len(self.entries) > 1 or remote.is_remote(self.entries[0]):
            return None
        path = Path(self.base, self.entries[0])
        return path if path.exists() else None

    def paths(self) -> list[Path]:
        """Local files and folders that the entries name, patterns expanded, links not checked."""
        found: list[Path] = []
        for entry in self.entries:
            if remote.is_remote(entry):
                continue
            path = Path(os.path.normpath(Path(self.base, entry)))
            if path.exists():
                found.append(path)
            elif is_pattern(entry):
                root, parts = _pattern(path)
                found.extend(_expand(root, parts, ()) if root.is_dir() else ())
        return found

    def peek(self) -> list[File]:
        """`files()`, kept for the next call of `files()`, which saves listing twice at the start"""
        if self._first is None:
            self._first = self._list()
        return self._first

    def files(self) -> list[File]:
        """All files, ordered by name. Raises BadInput: missing ones, an empty glob, link loops."""
        found, self._first = self._first, None
        return self._list() if found is None else found

    def _list(self) -> list[File]:
        found: dict[str, File] = {}
        missing: list[str] = []
        for entry in self.entries:
            if remote.is_remote(entry):
                files = self._remote(entry)
            else:
                files = list(self._local(entry, missing))
            for file in files:
                if file.name in found and found[file.name].uri != file.uri:
                    raise BadInput(
                        f"two files are named {file.name}: {found[file.name].uri} and {file.uri}",
                        "Give paths that tell them apart.",
                    )
                found[file.name] = file
        if missing:
            raise _are_missing(missing)
        return [found[name] for name in sorted(found)]

    def _remote(self, entry: str) -> list[File]:
        found = remote.listing(entry)
        prefix = ""
        if len(self.entries) > 1 and [each[1] for each in found] != [entry]:
            prefix = self._prefix(entry) + "/"
        elif len(self.entries) > 1 and self._alike:
            return [File(entry, *each[1:]) for each in found]
        return [File(prefix + name, uri, size, stamp) for name, uri, size, stamp in found]

    def _local(self, entry: str, missing: list[str]) -> Iterator[File]:
        prefix = self._prefix(entry) if len(self.entries) > 1 else ""
        path = Path(os.path.normpath(Path(self.base, entry)))
        try:
            if path.is_dir():
                yield from _below(path, f"{prefix}/" if prefix else "", (), missing)
            elif path.exists():
                yield _file(prefix or path.name, path)
            elif is_pattern(entry):
                yield from self._glob(entry, missing)
            else:
                missing.append(str(path))
        except OSError as error:
            raise from_os_error(error, "listing files", path) from error

    def _prefix(self, entry: str) -> str:
        return entry.rstrip("/") if self._alike else _last(entry)

    def _glob(self, entry: str, missing: list[str]) -> Iterator[File]:
        root, parts = _pattern(Path(os.path.normpath(Path(self.base, entry))))
        start = "" if len(self.entries) == 1 else _before_pattern(entry)
        some = False
        for path in _expand(root, parts, ()) if root.is_dir() else ():
            if path.is_dir():
                continue
            some = True
            if not path.exists():
                missing.append(str(path))
            elif not _hidden(path.name):
                yield _file(start + path.relative_to(root).as_posix(), path)
        if not some:
            raise BadInput(
                f"no file matches {entry} (below {root})",
                "Check the pattern; ** matches folders of any depth, as in data/**/*.parquet.",
                pattern=entry,
            )


def _last(entry: str) -> str:
    return remote.without_options(entry).rstrip("/").rpartition("/")[2]


def is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _pattern(path: Path) -> tuple[Path, tuple[str, ...]]:
    """(folder, parts below it): where the first pattern stands."""
    first = next(i for i, part in enumerate(path.parts) if is_pattern(part))
    return Path(*path.parts[:first]), path.parts[first:]


def _before_pattern(entry: str) -> str:
    folder = _pattern(Path(entry))[0].as_posix()
    return "" if folder == "." else folder + "/"


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _MARKERS


def _file(name: str, path: Path) -> File:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise BadInput(f"{path} is not a file", "Give regular files, folders or globs.")
    return File(name, str(path), found.st_size, f"{found.st_size}-{found.st_mtime_ns}")


def _below(
    folder: Path, prefix: str, above: tuple[tuple[int, int], ...], missing: list[str]
) -> Iterator[File]:
    above = _enter(folder, above)
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not _hidden(entry.name))
    for name in names:
        path = folder / name
        if path.is_dir():
            yield from _below(path, f"{prefix}{name}/", above, missing)
        elif path.exists():
            yield _file(prefix + name, path)
        else:
            _no_loop(path)
            missing.append(str(path))


def _expand(
    folder: Path, parts: Sequence[str], above: tuple[tuple[int, int], ...]
) -> Iterator[Path]:
    """Paths below `folder` that match the pattern's parts."""
    above = _enter(folder, above)
    head, rest = parts[0], parts[1:]
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    if head == "**":
        yield from _expand(folder, rest or ("*",), ())
        for name in names:
            if (folder / name).is_dir() and not _hidden(name):
                yield from _expand(folder / name, parts, above)
        return
    for name in names:
        if fnmatch.fnmatchcase(name, head):
            if not rest:
                yield folder / name
            elif (folder / name).is_dir():
                yield from _expand(folder / name, rest, above)


def _enter(folder: Path, above: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    found = folder.stat()
    here = (found.st_dev, found.st_ino)
    if here in above:
        raise BadInput(
            f"{folder} is a link to a folder that holds it ({folder.resolve()})",
            "Remove the link, or give the folders or files one by one.",
            path=str(folder),
        )
    return (*above, here)


def _no_loop(path: Path) -> None:
    """A dangling link is a missing file; a link to itself has an error of its own."""
    try:
        path.stat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadInput(
            f"{path} is a link that leads nowhere: {error.strerror}", "Remove the link."
        ) from None


def _near(path: Path) -> str | None:
    if not path.parent.is_dir():
        return None
    return nearest(path.name, (each.name for each in path.parent.iterdir()))


def _are_missing(missing: list[str]) -> BadInput:
    told = []
    for path in missing[:_SHOWN]:
        near = _near(Path(path))
        told.append(path + (f" (did you mean {near}?)" if near else ""))
    if len(missing) > _SHOWN:
        told.append(f"… and {len(missing) - _SHOWN} more")
    what = "1 file is" if len(missing) == 1 else f"{len(missing)} files are"
    return BadInput(
        f"{what} not there:\n  " + "\n  ".join(told),
        "Correct the paths, or bring the files there.",
        missing=missing,
    )
