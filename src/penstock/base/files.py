"""Errors of the operating system, told in the family's words."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.base.errors import DiskFull, PenstockError, ReadOnly, Unavailable

_FULL = {errno.ENOSPC, errno.EDQUOT}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


def from_os_error(error: OSError, doing: str, path: Path | str) -> PenstockError:
    """The family's error for an OSError.

    doing  what was tried, as a gerund with its object: "writing a blob"
    path   where
    """
    text = f"{doing} in {path}"
    facts = {"path": str(path), "errno": error.errno}
    if error.errno in _FULL:
        return DiskFull(
            f"no room left for {text}", "Free space, then run the same command again.", **facts
        )
    if error.errno in _READ_ONLY:
        return ReadOnly(
            f"no permission for {text}: {error.strerror}",
            "Make it writable for this user, or set `home` (PENSTOCK_HOME) to a folder that is.",
            **facts,
        )
    return Unavailable(
        f"{text} failed: {error.strerror or error}",
        "Look at the disk and the mount; `penstock doctor` helps. Then run again.",
        **facts,
    )


@contextmanager
def os_errors(doing: str, path: Path | str) -> Iterator[None]:
    """Turn every OSError of the block into DiskFull, ReadOnly or Unavailable."""
    try:
        yield
    except OSError as error:
        raise from_os_error(error, doing, path) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
