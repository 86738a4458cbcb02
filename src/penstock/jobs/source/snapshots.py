"""The project's source as it was: files in the blob store, and a manifest that lists them.

Ranks import from a snapshot, never from the working tree, so that an edit during a run reaches no
rank that is replaced later, and a run can be resumed with the code that it began with.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from penstock.base.errors import BadInput, Damaged, DiskFull, PenstockError, ReadOnly, Unavailable
from penstock.base.hashing import canonical_json, is_digest, short
from penstock.base.ids import new_id
from penstock.blobs.port import Blobs
from penstock.jobs.source import files
from penstock.jobs.source.entry import Entry
from penstock.jobs.source.modules import is_installed, reached

_FORMAT = 1
_OTHERS = ".others"  # in a snapshot: folders of sys.path that lie outside of the root
_AT_ONCE = 8  # files that are stored at the same time
_STALE = 3600.0  # seconds after which a half-written folder belongs to nobody


def snapshot(
    root: Path, blobs: Blobs, extra_files: Iterable[Path | str] = (), entry: Entry | None = None
) -> str:
    """Store the source below `root` and return the digest of its manifest.

    root         the folder that goes on sys.path, as in `Entry.root`
    extra_files  files to add whatever their suffix, relative to `root` or absolute inside it
    entry        with it, code of the project that is imported from other folders (a `src/` beside
                 `scripts/`, an editable installation) is taken along, and a folder that is no
                 project and is too large is cut to what the entry imports

    Manifest: {"format": 1, "paths": folders for sys.path, "files": {path: {"digest", "bytes"}}}.
    A folder of installed packages gives no files: what is installed is not the project's.
    Raises BadInput when a project is too large (`files` has the limits), DiskFull, ReadOnly.
    """
    root = root.resolve()
    imported = reached(entry) if entry is not None else {}
    paths = set() if is_installed(root) else set(_choose(root, imported.pop(root, None)))
    paths |= {_inside(root, Path(extra)) for extra in extra_files}
    listed = _store(root, paths, "", blobs)
    places = [""]
    for folder in sorted(imported):
        if folder.is_relative_to(root):
            places.append(folder.relative_to(root).as_posix())
        elif not is_installed(folder):
            places.append(f"{_OTHERS}/{len(places)}")
            listed |= _store(folder, _choose(folder, imported[folder]), places[-1] + "/", blobs)
    return blobs.put(canonical_json({"format": _FORMAT, "paths": places, "files": listed}))


def _store(root: Path, paths: Iterable[str], prefix: str, blobs: Blobs) -> dict[str, Any]:
    """Put files into the blob store; their manifest entries, under `prefix`.

    Many at once: each waits for its own flush to the disk, or for its own request.
    """

    def store(path: str) -> tuple[str, dict[str, Any]] | None:
        try:
            data = (root / path).read_bytes()
        except FileNotFoundError:
            return None  # removed while we looked; then the project does without it
        except OSError as error:
            raise Unavailable(
                f"{root / path} cannot be read: {error.strerror}",
                "Make it readable, or name it in .gitignore.",
                path=str(root / path),
            ) from None
        return prefix + path, {"digest": blobs.put(data), "bytes": len(data)}

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(entry for entry in pool.map(store, sorted(paths)) if entry is not None)


def refs(digest: str, blobs: Blobs) -> list[str]:
    """Every blob that a snapshot needs, its manifest first: what a row has to refer to."""
    listed = _read_manifest(digest, blobs).files
    return [digest, *sorted({file["digest"] for file in listed.values()})]


def materialise(digest: str, blobs: Blobs, folder: Path) -> Path:
    """Lay a snapshot out below `folder` (the layout's `sources`), to be imported from.

    Returns folder/HEX. Made beside it and renamed, so it is there whole or not at all; any number
    of processes may ask at once. One that is there is used when all its files have their sizes,
    and made anew otherwise.
    Raises NotFound, Damaged (a file or path that cannot be what was stored), DiskFull, ReadOnly.
    """
    listed = _read_manifest(digest, blobs).files
    target = folder / short(digest, 64)
    if _is_whole(target, listed):
        return target
    making = folder / f".{new_id('making')}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        making.mkdir()
        for path, file in listed.items():
            place = making / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(blobs.get(file["digest"]))
            place.chmod(0o444)  # an edit here would be lost, and would not be what was recorded
        _rename(making, target, listed)
    except OSError as error:
        raise _storage_error(error, folder) from None
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return target


def import_paths(digest: str, blobs: Blobs, folder: Path) -> list[Path]:
    """What goes on sys.path, in this order, to import a snapshot laid out in `folder`.

    The folder itself comes first; the others are there when `snapshot` was given an entry that
    imports from them.
    """
    return [folder / place for place in _read_manifest(digest, blobs).paths]


def _choose(root: Path, imported: list[str] | None) -> list[str]:
    try:
        return files.choose(root)
    except files.TooMuch as much:
        if files.is_project(root) or imported is None:
            raise files.refuse(root, str(much)) from None
        return imported


def _inside(root: Path, path: Path) -> str:
    full = (root / path).resolve()
    if not full.is_relative_to(root) or not full.is_file():
        raise BadInput(
            f"{path} is not a file inside {root}",
            "Name files of the project; data from elsewhere belongs in a dataset.",
            path=str(path),
        )
    return full.relative_to(root).as_posix()


@dataclass(frozen=True, slots=True)
class _Manifest:
    paths: list[str]
    files: dict[str, dict[str, Any]]


def _read_manifest(digest: str, blobs: Blobs) -> _Manifest:
    """What a snapshot holds, every path and digest checked."""
    damage = Damaged(
        f"source snapshot {short(digest)} is not a manifest that Penstock wrote",
        "Start the run again with fresh=True, which takes a new snapshot.",
        digest=digest,
    )
    if not is_digest(digest):
        raise damage
    try:
        data = json.loads(blobs.get(digest))
        manifest = _Manifest(list(data["paths"]), dict(data["files"]))
        sound = (
            data["format"] == _FORMAT
            and all(place == "" or _is_safe(place) for place in manifest.paths)
            and all(
                _is_safe(path) and is_digest(file["digest"]) and isinstance(file["bytes"], int)
                for path, file in manifest.files.items()
            )
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise damage from None
    if not sound:
        raise damage
    return manifest


def _is_safe(path: str) -> bool:
    """Whether a path stays below the folder it is joined to, on any system."""
    parts = path.split("/")
    return (
        not PurePosixPath(path).is_absolute()
        and not any(part in ("", ".", "..") for part in parts)
        and not any(sign in path for sign in "\\\0:")
    )


def _is_whole(target: Path, listed: dict[str, dict[str, Any]]) -> bool:
    """Sizes only: a power cut can leave renamed files empty, and hashing would delay each rank."""
    try:
        return target.is_dir() and all(
            (target / path).lstat().st_size == file["bytes"] for path, file in listed.items()
        )
    except OSError:
        return False


def _rename(making: Path, target: Path, listed: dict[str, dict[str, Any]]) -> None:
    try:
        making.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if _is_whole(target, listed):
            return  # somebody else was first
        target.rename(target.with_name(f".{new_id('broken')}"))
        _rename(making, target, listed)


def _sweep(folder: Path) -> None:
    """Remove what dead processes left half-written, long ago."""
    for pattern in (".making-*", ".broken-*"):
        for left in folder.glob(pattern):
            try:
                if time.time() - left.stat().st_mtime > _STALE:
                    shutil.rmtree(left, ignore_errors=True)
            except OSError:
                continue


def _storage_error(error: OSError, folder: Path) -> PenstockError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"no room to lay out the source in {folder}", "Free some space.", path=str(folder)
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return ReadOnly(f"{folder} cannot be written", "Make the home writable.", path=str(folder))
    return Unavailable(
        f"the source cannot be laid out in {folder}: {os.strerror(error.errno or 0)}",
        "Look at the disk; `penstock doctor` helps.",
        path=str(folder),
    )
