"""The agent's control group, of version 2 or 1: memory that is left, and whom the kernel killed.

Sources: Linux kernel, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst
"""

from __future__ import annotations

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_SELF = Path("/proc/self/cgroup")


def memory_left() -> int | None:
    """Bytes up to the group's limit; None where there is none."""
    two, one = _folders()
    limit = _number(two / "memory.max")  # "max" where there is none
    used = _number(two / "memory.current")
    if limit is None or used is None:
        limit = _number(one / "memory.limit_in_bytes")  # a huge number where there is none
        used = _number(one / "memory.usage_in_bytes")
    return None if limit is None or used is None else max(0, limit - used)


def oom_kills() -> int:
    """Processes of this group that the kernel killed for want of memory; 0 where nobody counts."""
    two, one = _folders()
    for path in (two / "memory.events", one / "memory.oom_control"):
        try:
            words = [line.split() for line in path.read_text().splitlines()]
        except OSError:
            continue
        return next((int(count) for name, count in words if name == "oom_kill"), 0)
    return 0


class OomWatch:
    """Tells a child that the kernel killed for memory from one that somebody killed: the kernel
    counts before the death can be seen."""

    def __init__(self) -> None:
        self._known = oom_kills()

    def took(self, signal: str | None) -> bool:
        """Whether the child that just died by this signal was one of those."""
        before, self._known = self._known, oom_kills()
        return signal == "SIGKILL" and self._known > before


def _folders() -> tuple[Path, Path]:
    """Of version 2 and of version 1's memory controller. Within a namespace the path may be one
    that is only seen from outside; then the root is ours."""
    paths = {"": "/", "memory": "/"}
    try:
        for line in _SELF.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            paths.update(dict.fromkeys(controllers.split(","), path))
    except OSError:
        return _ROOT, _ROOT / "memory"
    return _inside(_ROOT, paths[""]), _inside(_ROOT / "memory", paths["memory"])


def _inside(root: Path, path: str) -> Path:
    folder = root / path.lstrip("/")
    return folder if folder.is_dir() else root


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
