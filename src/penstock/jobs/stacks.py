"""Stacks of a rank's threads, written when the agent asks: what hangs cannot say so itself.

The writer is `faulthandler` in a C signal handler, so it answers also where no Python code runs
any more: in a C extension, in a collective operation, behind a lock. The signal is a real-time
one, because SIGUSR1 and SIGUSR2 belong to the user's code.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SIGNAL = int(signal.SIGRTMIN) + 9
_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.+)$')
_OURS = ("training/group.py", "training/micro.py", "training/launched/", "jobs/link.py")
_WAITING = ("/torch/distributed/", *(f"/penstock/{file}" for file in _OURS))
_WRAPPER = "/torch/nn/parallel/distributed.py"  # is around the whole model too
_BACKWARD = "_engine_run_backward"  # gradients are summed over the ranks inside it


@dataclass(frozen=True, slots=True)
class Frame:
    file: str
    line: int
    function: str


def register(path: Path) -> int:
    """Answer `SIGNAL` from now on by appending the stacks of all threads to `path`. Returns what
    `unregister` wants."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    faulthandler.register(SIGNAL, file=fd, all_threads=True)
    return fd


def unregister(fd: int) -> None:
    """Who sends `SIGNAL` from now on ends this process."""
    faulthandler.unregister(SIGNAL)
    os.close(fd)


def main_thread(text: str) -> list[Frame]:
    """The frames of the main thread, innermost first; empty when there is nothing to read."""
    blocks: list[list[Frame]] = []
    current: list[Frame] | None = None
    for line in text.splitlines():
        if line.startswith(("Thread 0x", "Current thread 0x")):
            blocks.append([])
            if line.startswith("Current"):  # the kernel gives a signal to the main thread first
                current = blocks[-1]
        elif blocks and (found := _FRAME.match(line)):
            blocks[-1].append(Frame(found[1], int(found[2]), found[3]))
    return current or (blocks[-1] if blocks else [])


def innermost(frames: Sequence[Frame], folders: Sequence[str]) -> int | None:
    """Index of the innermost frame whose file lies in one of the project's folders, which may
    have an environment with installed packages inside."""
    inside = tuple(folder + os.sep for folder in folders)
    mine = (i for i, each in enumerate(frames) if each.file.startswith(inside))
    return next((i for i in mine if "/site-packages/" not in frames[i].file), None)


def named(frame: Frame, folders: Sequence[str] = ()) -> str:
    """ "train.py:12 in fit": the file by the innermost of the folders that has it."""
    for folder in sorted(folders, key=len, reverse=True):
        if frame.file.startswith(folder + os.sep):
            file = frame.file.removeprefix(folder + os.sep)
            break
    else:
        file = "/".join(Path(frame.file).parts[-2:])
    return f"{file}:{frame.line} in {frame.function}"


def waits(frames: Sequence[Frame]) -> bool:
    """Whether these frames, those that the project's own line called, wait for other ranks."""
    if frames and frames[0].file.endswith(_WRAPPER):
        return True
    return any(
        each.function == _BACKWARD or any(part in each.file for part in _WAITING) for each in frames
    )
