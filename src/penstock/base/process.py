"""What Linux offers for owning processes: identity, death signals, subreapers, pidfds.

A pid alone is not an identity: it is used again. `Identity` adds the start time from /proc, so
that "is the holder of this lease still alive" has an exact answer on the same machine and boot.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def die_with_parent(parent: int, sig: int = signal.SIGKILL) -> None:
    """Ask the kernel for `sig` when `parent` dies; exit at once when it is already gone.

    Call it in the child. Without the second look at getppid a parent that died in between
    would leave an orphan.
    """
    _prctl(_PR_SET_PDEATHSIG, sig)
    if os.getppid() != parent:
        os._exit(1)


def become_subreaper() -> None:
    """Make this process the parent of descendants whose own parent dies."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_name(name: str) -> None:
    """Name this thread in ps and top (15 bytes)."""
    _libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def boot_id() -> str:
    """This boot of this machine; another boot has another one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Clock ticks since boot at which `pid` started; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def status(pid: int) -> dict[str, str]:
    """What /proc tells of a process: "State", "TracerPid", "SigCgt", …; empty when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def is_traced(told: dict[str, str]) -> bool:
    """Whether a debugger holds the process (of its `status`)."""
    return told.get("TracerPid", "0") != "0"


def handles(told: dict[str, str], number: int) -> bool:
    """Whether the process (of its `status`) has a handler for a signal."""
    return bool(int(told.get("SigCgt", "0"), 16) >> (number - 1) & 1)


def is_stopped(told: dict[str, str]) -> bool:
    """Whether the process (of its `status`) was stopped: it answers no signal until it goes on."""
    return told.get("State", "").startswith("T")


def kernel_stack(pid: int) -> list[str]:
    """Functions of the kernel in which the main thread of a process stands, innermost first.

    All of them for root; the one in which it sleeps for others; none where the kernel tells none.
    """
    try:
        lines = Path(f"/proc/{pid}/stack").read_text().splitlines()
    except OSError:
        lines = []
    if found := [line.split()[1].split("+")[0] for line in lines if " " in line]:
        return found
    try:
        name = Path(f"/proc/{pid}/wchan").read_text().strip()
    except OSError:
        return []
    return [] if name in ("", "0") else [name]


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, never confused with a later one of the same pid."""

    host: str
    boot: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.host}/{self.boot}/{self.pid}/{self.started}"

    @classmethod
    def parse(cls, text: str) -> Identity:
        host, boot, pid, started = text.rsplit("/", 3)
        return cls(host, boot, int(pid), int(started))

    @classmethod
    def of(cls, pid: int) -> Identity:
        return cls(socket.gethostname(), boot_id(), pid, start_time(pid) or 0)

    @classmethod
    def mine(cls) -> Identity:
        return cls.of(os.getpid())

    def is_dead(self) -> bool | None:
        """True or False when it can be known from here, None when it is on another machine."""
        if self.host != socket.gethostname():
            return None
        if self.boot != boot_id():
            return True
        return start_time(self.pid) != self.started


def kill_quietly(pid: int, sig: int = signal.SIGKILL) -> None:
    """Send a signal; a process that is gone is no error."""
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        return
