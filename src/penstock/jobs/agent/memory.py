"""Shared buffers between ranks and sidecars, and how much memory they may take."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

SHM = Path("/dev/shm")
_CGROUP = Path("/sys/fs/cgroup")


def _cgroup_left() -> int | None:
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)


def budget(wanted: int | None) -> int:
    """Bytes that checkpoints may take in memory.

    wanted  from the settings; None: a fourth of what machine, cgroup and /dev/shm leave
    """
    left = [int(psutil.virtual_memory().available)]
    if SHM.is_dir():
        left.append(shutil.disk_usage(SHM).free)
    if (cgroup := _cgroup_left()) is not None:
        left.append(cgroup)
    room = min(left)
    return room // 4 if wanted is None else min(wanted, room)


def memory_buffer(name: str, size: int) -> int:
    """A descriptor of `size` bytes that live in memory and die with their last holder."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd


def disk_buffer(folder: Path, name: str, size: int) -> int:
    """The same on disk, for when memory has no room: already unlinked, so nothing is left over."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    path.unlink()
    os.posix_fallocate(fd, 0, max(size, 1))
    return fd
