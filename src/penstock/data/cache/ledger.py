"""What the node's processes keep together: which files were found whole, and how much was done.

`verified` is a table of 2**17 slots of 16 bytes. A slot holds the XXH3-128 of what a file was when
its bytes were hashed and found right: digest, device, inode, modification time, size, the
machine's boot, and of a blob the time of its last change, which nobody can put back. So a file is
hashed once per node and boot, whoever opens it; one that is written anew, replaced, or may have
been torn by a power cut, is hashed again. Slots are overwritten without locks: what is lost or
torn costs a hash, and cannot be mistaken for a proof.

`counters` is a row of int64, changed under a lock; `counters.py` names them.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import xxhash

from penstock.base.hashing import PREFIX

_SLOTS = 1 << 17
_SLOT = 16  # bytes


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Verified:
    """The table of proofs in a folder. Safe for threads and processes; holds nothing open."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "verified"
        self._boot = _boot()
        self._mine: set[bytes] = set()

    def knows(self, digest: str, state: os.stat_result) -> bool:
        """Whether the bytes of exactly this file were found right since the machine started."""
        proof = self._proof(digest, state)
        if proof in self._mine:
            return True
        if not self._boot:
            return False
        with suppress(OSError):
            handle = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if os.pread(handle, _SLOT, _place(proof)) == proof:
                    self._mine.add(proof)
            finally:
                os.close(handle)
        return proof in self._mine

    def add(self, digest: str, state: os.stat_result) -> None:
        """This file's bytes are right. Where the table cannot be written, this process knows."""
        proof = self._proof(digest, state)
        self._mine.add(proof)
        if not self._boot:
            return
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            handle = os.open(self._path, flags, 0o644)
            try:
                os.pwrite(handle, proof, _place(proof))
            finally:
                os.close(handle)

    def _proof(self, digest: str, state: os.stat_result) -> bytes:
        facts = [state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size]
        if digest.startswith(PREFIX):  # a blob: nothing of ours changes it, as use does our files
            facts.append(state.st_ctime_ns)
        return xxhash.xxh3_128_digest(repr((digest, self._boot, *facts)).encode())


def _place(proof: bytes) -> int:
    return int.from_bytes(proof[:4], "little") % _SLOTS * _SLOT


def change(path: Path, many: int, how: Callable[[list[int]], Sequence[int]]) -> list[int]:
    """Change a row of `many` int64 in a file while nobody else does; returns the new row.

    Raises OSError.
    """
    row = struct.Struct(f"<{many}q")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # freed by close; held for microseconds, or an eviction
        found = os.pread(handle, row.size, 0).ljust(row.size, b"\0")
        made = list(how(list(row.unpack(found))))
        os.pwrite(handle, row.pack(*made), 0)
        return made
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def look(path: Path, many: int) -> list[int]:
    """The row as it is; zeros when there is none."""
    row = struct.Struct(f"<{many}q")
    try:
        found = path.read_bytes()[: row.size]
    except OSError:
        found = b""
    return list(row.unpack(found.ljust(row.size, b"\0")))
