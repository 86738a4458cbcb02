"""Shared buffers between ranks and sidecars, and how much memory they may take."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

from penstock.base.errors import DiskFull
from penstock.jobs.agent.cgroup import memory_left

SHM = Path("/dev/shm")


def budget(wanted: int | None) -> int:
    """Bytes that checkpoints may take in memory.

    wanted  from the settings; None: a fourth of what machine, cgroup and /dev/shm leave
    """
    left = [int(psutil.virtual_memory().available)]
    if SHM.is_dir():
        left.append(shutil.disk_usage(SHM).free)
    if (cgroup := memory_left()) is not None:
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


def make_buffers(name: str, size: int, count: int, folder: Path | None) -> dict[str, int]:
    """slot -> descriptor, `count` of them: in memory, or on disk when a folder is given.

    Raises DiskFull; nothing is left open then.
    """
    made: dict[str, int] = {}
    try:
        for number in range(count):
            slot = f"{name}-{number}-{size}"
            made[slot] = (
                memory_buffer(slot, size) if folder is None else disk_buffer(folder, slot, size)
            )
    except OSError as error:
        for fd in made.values():
            os.close(fd)
        raise DiskFull(
            f"no room for a checkpoint of {size} bytes: {error}",
            "Free memory or disk space; the run goes on from its last checkpoint.",
            bytes=size,
        ) from None
    return made
