"""The machine and the versions, as far as a reader needs them to judge the figures."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import psutil

_NAMED = ("penstock", "torch", "numpy", "pyarrow", "sqlalchemy", "grpcio")


def machine() -> dict[str, object]:
    """cores    that this process may use
    memory_gib  of the machine
    load        1-minute average before the benchmark: what else was going on
    """
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "load": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Of what Penstock's side runs on."""
    found = {"python": platform.python_version()}
    for name in _NAMED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
