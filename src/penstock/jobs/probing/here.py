"""What a machine has for agents and ranks of a controller elsewhere, told by a process on it.

Everything is plain data. A part that cannot be looked at is {"error": what, "fix": …}; the others
are told all the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import resource
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from penstock.base.errors import PenstockError
from penstock.jobs.backends import hosting
from penstock.jobs.machine import gpus, memory_limit, mount_list, torch_without_cuda

SHM = Path("/dev/shm")
_CGROUP = Path("/sys/fs/cgroup")
_PACKAGES = ("penstock", "torch", "ray")


def facts(address: str, blobs: dict[str, Any] | None, named: Sequence[str]) -> dict[str, Any]:
    """All there is to tell.

    address  by which others know this machine
    blobs    {"url": …} of the store, with "marker" of `marking`; None: it is not tried
    named    network interfaces that the script's environment names for its ranks
    """
    return {
        "host": socket.gethostname(),
        "versions": versions(),
        "network": _part(lambda: _network(address, named)),
        "names": _part(lambda: _names(address)),
        "home": _part(_home),
        "shm": _part(lambda: _room(SHM)),
        "memory": _part(_memory),
        "cores": _part(_cores),
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "gpus": _part(_gpus),
        "blobs": None if blobs is None else _part(lambda: _blobs(blobs)),
    }


def versions() -> dict[str, str]:
    """Of Python and of what has to be the same, or to fit; "" for what is not installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def _part(look: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return look()
    except PenstockError as error:
        return {"error": error.what, "fix": error.fix, "code": error.code}
    except Exception as error:  # noqa: BLE001 - one part must not hide the others
        return {"error": f"{type(error).__name__}: {error}", "fix": "", "code": "error"}


def _network(address: str, named: Sequence[str]) -> dict[str, Any]:
    """The interface that ranks would talk over, and those that are named but not there."""
    name = hosting.interface_of(address)
    there = psutil.net_if_stats()
    stats = there.get(name)
    missing = sorted({each for each in named if not _names_one(each, there)})
    found: dict[str, Any] = {"address": address, "interface": name}
    found |= {"missing": missing, "there": sorted(there)}
    if stats is not None:
        found |= {"mtu": stats.mtu, "mbit": stats.speed, "up": stats.isup}
    return found


def _names_one(named: str, there: Sequence[str] | dict[str, Any]) -> bool:
    """As NCCL reads it: a list of beginnings; "=" before names that are whole, "^" before those
    that are not to be used.

    >>> _names_one("ib,eth", ["lo", "eth0"]), _names_one("=eth", ["eth0"]), _names_one("^lo", [])
    (True, False, True)
    """
    if named.startswith("^"):
        return True
    whole = named.startswith("=")
    wanted = named.removeprefix("=").split(",")
    return any(
        name == each if whole else name.startswith(each) for each in wanted for name in there
    )


def _names(address: str) -> dict[str, Any]:
    """How long the name of an address takes, asked as torch asks for it when ranks meet: of an IPv4
    address that is mapped into IPv6. A server that says that there is none is as good."""
    began = time.monotonic()
    with contextlib.suppress(OSError):
        socket.getnameinfo((address if ":" in address else f"::ffff:{address}", 0), 0)
    return {"address": address, "seconds": time.monotonic() - began}


def _home() -> dict[str, Any]:
    """Where agents have their folders; nothing is made there."""
    from penstock.meta.network import file_system, is_network

    home = hosting.node_home()
    nearest = next(each for each in (home, *home.parents) if each.exists())
    kind, _ = file_system(nearest.resolve(), mount_list())
    writable = os.access(nearest, os.W_OK | os.X_OK)
    readonly = bool(os.statvfs(nearest).f_flag & os.ST_RDONLY)
    found = {"path": str(home), "kind": kind, "writable": writable and not readonly}
    return {**found, "network": is_network(kind), **_room(nearest)}


def _room(path: Path) -> dict[str, Any]:
    usage = shutil.disk_usage(path)
    return {"free": usage.free, "total": usage.total}


def _memory() -> dict[str, Any]:
    limit, used, source = memory_limit()
    return {"limit": limit, "free": limit - used, "source": source}


def _cores() -> dict[str, Any]:
    """Those that this process may use, and how many of them its cgroup lets it have."""
    count = len(os.sched_getaffinity(0))
    quota = _quota()
    return {"count": count, "quota": quota, "usable": count if quota is None else min(count, quota)}


def _quota() -> float | None:
    """Cores that the cgroups allow; None: they set no limit. Source: cgroup-v2.rst, cpu.max."""
    best: float | None = None
    own = Path("/proc/self/cgroup").read_text().splitlines()
    for line in (each for each in own if each.startswith("0::")):
        folder = _CGROUP / line[3:].lstrip("/")
        for each in (folder, *folder.parents):
            if each == _CGROUP.parent:
                break
            try:
                most, period = (each / "cpu.max").read_text().split()
            except (OSError, ValueError):
                continue
            if most != "max":
                best = min(int(most) / int(period), best or float("inf"))
    return best


def _gpus() -> dict[str, Any]:
    found = gpus()
    names = [] if found is None else found
    return {"driver": found is not None, "names": names, "torch_for_cpus": torch_without_cuda()}


def _blobs(told: dict[str, Any]) -> dict[str, Any]:
    from penstock.blobs import probe
    from penstock.jobs.probing import marking

    found = dataclasses.asdict(probe(told["url"]))
    return {**found, "shared": marking.is_seen(told.get("marker"))}
