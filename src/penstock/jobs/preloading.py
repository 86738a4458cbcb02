"""What a process imports that is then only forked, and what it must leave out.

A fork has one thread, and no context on a GPU, so whatever an import began of these would be half
there in it. After each module that is not Penstock's own this is looked at. One that started a
thread, touched a GPU or did not import spoils the process, which then becomes a new one (exec: the
same pid, parent and channel) that leaves it out, and tells so.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_WITHOUT = "--without"
left_out: dict[str, str] = {}  # module -> why; forks of this process tell it too


def warm(program: str, argv: Sequence[str]) -> None:
    """Import what forks are to have. Replaces this process where a module may not stay.

    program  what `python -m` started, with `argv`: FD PARENT MODULE… [--without JSON]
    """
    channel, modules, known = _read(argv)
    left_out.update(known)
    own = [module for module in modules if module.startswith("penstock.")]
    with _kept():
        for module in own:
            importlib.import_module(module)
        before = _threads() if len(own) < len(modules) else 1  # 1, but for a torch of another kind
        for module in modules:
            if module in own or module in known:
                continue
            if (why := _import(module, before)) is not None:
                sys.stderr.write(f"{module} is left out of the image: {why}\n")
                sys.stderr.flush()
                os.set_inheritable(int(channel[0]), True)
                without = json.dumps({**known, module: why})
                words = [*channel, *modules, _WITHOUT, without]
                os.execv(sys.executable, [sys.executable, "-m", program, *words])


def more(modules: Iterable[str]) -> None:
    """Of Penstock's own, which are trusted."""
    with _kept():
        for module in modules:
            importlib.import_module(module)


@contextmanager
def _kept() -> Iterator[None]:
    """What is imported stays and is shared with forks, so the collector must not touch it. It would
    look at it a hundred times over: without it an import of torch takes four fifths of its time.
    Nor once at the end: a quarter of a second, for some 9,000 objects of half a million."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def _read(argv: Sequence[str]) -> tuple[list[str], list[str], dict[str, str]]:
    modules = list(argv[2:])
    known: dict[str, str] = {}
    if _WITHOUT in modules:
        at = modules.index(_WITHOUT)
        known = json.loads(modules[at + 1])
        modules = modules[:at]
    return list(argv[:2]), modules, known


def _import(module: str, before: int) -> str | None:
    """Why it may not stay; None where it may. before: threads that were there without it"""
    try:
        importlib.import_module(module)
    except BaseException as error:  # noqa: BLE001 - whatever a foreign module raises, or leaves by
        return f"{type(error).__name__}: {error}"
    return unfit(before)


def unfit(before: int = 1) -> str | None:
    """Why this process could not be forked any more; None where it can."""
    if (more := _threads() - before) > 0:
        return f"it started {more} thread{'s' if more > 1 else ''}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "it initialised CUDA"
    if "/dev/nvidia-uvm" in _open_files():  # CUDA opens it, NVML does not
        return "it initialised CUDA"
    return None


def _threads() -> int:
    """How many this process has. OpenBLAS ends its own before any fork and begins them anew after
    it, so they are no hindrance: of several, those are counted that outlive a fork."""
    found = _tasks()
    if found > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
            child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        found = _tasks()
    return found


def _tasks() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _open_files() -> Iterator[str]:
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            yield str(entry.readlink())
