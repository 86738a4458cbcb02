"""Facts about this machine, read from the kernel, the driver and installed files."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from pathlib import Path
from typing import Any

import psutil


def mount_list() -> str:
    """The kernel's list of mounts, as proc_pid_mountinfo(5) has it; empty where there is none."""
    try:
        return Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return ""


def memory_limit() -> tuple[int, int, str]:
    """(limit, used, source) in bytes: the tightest of the machine and its cgroups.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst, memory.max and memory.current; page
    cache that can be dropped (inactive_file) is not counted as used.
    """
    machine = psutil.virtual_memory()
    best = (int(machine.total), int(machine.total - machine.available), "machine")
    for limit_file, used_file in _cgroup_files():
        try:
            text = limit_file.read_text().strip()
            limit = int(text) if text != "max" else best[0]
            used = int(used_file.read_text()) - _droppable(limit_file.parent)
        except (OSError, ValueError):
            continue
        if limit - used < best[0] - best[1] and limit <= machine.total:
            best = (limit, used, "cgroup")
    return best


def _cgroup_files() -> list[tuple[Path, Path]]:
    """Limit and usage files of every cgroup this process is in, v2 and v1."""
    root = Path("/sys/fs/cgroup")
    files = [
        (root / "memory/memory.limit_in_bytes", root / "memory/memory.usage_in_bytes"),
    ]
    try:
        own = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        own = []
    for line in own:
        if line.startswith("0::"):
            folder = root / line[3:].lstrip("/")
            for each in (folder, *folder.parents):
                if each == root.parent:
                    break
                files.append((each / "memory.max", each / "memory.current"))
    return files


def _droppable(folder: Path) -> int:
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def gpus() -> list[str] | None:
    """Names of NVIDIA GPUs with their memory; None when no driver answers."""
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return _from_proc()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        names = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            name = pynvml.nvmlDeviceGetName(device)
            total = pynvml.nvmlDeviceGetMemoryInfo(device).total
            text = name.decode() if isinstance(name, bytes) else str(name)
            names.append(f"{text} ({total / (1 << 30):.0f} GiB)")
        return names
    finally:
        pynvml.nvmlShutdown()


_DRIVER = Path("/proc/driver/nvidia/gpus")


def _from_proc() -> list[str] | None:
    """The driver's own list, without nvidia-ml-py."""
    if not _DRIVER.is_dir():
        return None
    found = []
    for entry in sorted(_DRIVER.iterdir()):
        lines = (entry / "information").read_text().splitlines()
        models = [line.split(":", 1)[1] for line in lines if line.startswith("Model")]
        model = models[0] if models else entry.name
        found.append(model.strip())
    return found


def torch_without_cuda() -> str | None:
    """The version of an installed torch that is built for CPUs only; None for any other.

    Read from its files: importing torch would take a second, and is not for a door to do.
    """
    try:
        torch = importlib.metadata.distribution("torch")
        text = Path(str(torch.locate_file("torch/version.py"))).read_text()
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None
    built_for = re.findall(r"^(?:cuda|hip)\b[^=\n]*=\s*(\S+)", text, re.MULTILINE)
    return torch.version if built_for and set(built_for) == {"None"} else None
