"""Which files of a project belong to its source snapshot.

1. Only source and small settings: the suffixes of SUFFIXES, at most 1 MiB each.
2. Never hidden folders or files, `__pycache__`, `node_modules`, virtual environments (a folder
   with `pyvenv.cfg`), `site-packages`, nor what git ignores.
3. At most 5,000 files and 64 MiB in all.
4. A project is a folder with `.git`, `penstock.toml` or `pyproject.toml` in it or above it; one
   beyond the limits is refused. Any other folder (a script in a home directory, say) that is
   beyond the limits gives only the modules that the entry file imports, and theirs.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from penstock.base.errors import BadInput
from penstock.base.units import show_bytes
from penstock.jobs.source.git import git_files

SUFFIXES = frozenset({".py", ".toml", ".yaml", ".yml", ".json", ".txt", ".cfg"})
FILE_BYTES = 1 << 20
FILES = 5_000
BYTES = 64 << 20
LOOKED_AT = 100_000  # directory entries, before a walk without git gives up

_MARKS = (".git", "penstock.toml", "pyproject.toml")
_NOT_OURS = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})


class TooMuch(Exception):
    """Inside this module and its caller only: the folder is beyond the limits."""


def is_project(root: Path) -> bool:
    """Whether `root` or a folder above it is marked as a project."""
    return any((folder / mark).exists() for folder in (root, *root.parents) for mark in _MARKS)


def choose(root: Path) -> list[str]:
    """Paths of the snapshot, relative to `root`, sorted. Raises TooMuch."""
    listed = git_files(root)
    chosen: list[str] = []
    total = 0
    for path in _walk(root) if listed is None else listed:
        size = _size(root, path)
        if size is None:
            continue
        chosen.append(path)
        total += size
        if len(chosen) > FILES or total > BYTES:
            raise TooMuch(_heaviest(root, chosen))
    return sorted(chosen)


def refuse(root: Path, heaviest: str) -> BadInput:
    """The error for a project beyond the limits."""
    return BadInput(
        f"the source of {root} is more than {FILES:,} files or {show_bytes(BYTES)}; most of it is "
        f"in {heaviest}",
        "Move data out of the project, or name it in .gitignore; data belongs in a dataset.",
        root=str(root),
        heaviest=heaviest,
    )


def _size(root: Path, path: str) -> int | None:
    """Bytes of a file that belongs to the snapshot; None for all else."""
    parts = PurePosixPath(path).parts
    if PurePosixPath(path).suffix not in SUFFIXES:
        return None
    if any(part.startswith(".") or part in _NOT_OURS for part in parts):
        return None
    file = root / path
    try:
        if not file.is_file() or not file.resolve().is_relative_to(root):
            return None  # gone since git listed it, or a link that leads out
        size = file.stat().st_size
    except OSError:
        return None
    return size if size <= FILE_BYTES else None


def _walk(root: Path) -> Iterator[str]:
    seen = 0
    for folder, folders, files in os.walk(root):
        seen += len(folders) + len(files)
        if seen > LOOKED_AT:
            raise TooMuch(str(root))
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _NOT_OURS
            and not Path(folder, name, "pyvenv.cfg").exists()
            and not _is_state(Path(folder, name))
        )
        for name in files:
            yield Path(folder, name).relative_to(root).as_posix()


def _is_state(folder: Path) -> bool:
    """Whether it is a home, whose rows may lie elsewhere, or another folder that keeps all of
    itself from git."""
    if (folder / "meta.db").exists():
        return True
    try:
        return (folder / ".gitignore").read_text().strip() == "*"
    except (OSError, UnicodeDecodeError):
        return False


def _heaviest(root: Path, paths: Iterable[str]) -> str:
    """The folder right below `root` that holds most of the bytes."""
    bytes_of: Counter[str] = Counter()
    for path in paths:
        top = path.split("/", 1)[0] if "/" in path else "."
        bytes_of[top] += (_size(root, path) or 0) + 1
    return bytes_of.most_common(1)[0][0]
