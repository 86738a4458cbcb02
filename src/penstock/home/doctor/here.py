"""What this machine has left: disk, memory, ports, GPUs."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from penstock.base.settings import UP_PORT, Settings
from penstock.base.units import show_bytes
from penstock.home.machine import listener
from penstock.home.views import Check
from penstock.jobs.machine import gpus, memory_limit, torch_without_cuda

GIB = 1 << 30
_SHM = Path("/dev/shm")
_LOOPBACK = "127.0.0.1"


def disk(settings: Settings) -> Iterator[Check]:
    """Room for blobs and checkpoints."""
    usage = shutil.disk_usage(existing(settings.home))
    text = f"{show_bytes(usage.free)} of {show_bytes(usage.total)} free"
    facts = {"free": usage.free, "total": usage.total}
    fix = "Free some: `penstock gc` removes what no version and no run needs."
    if usage.free < GIB // 4:
        yield Check("disk", "fail", text, fix, facts)
    elif usage.free < 2 * GIB:
        yield Check("disk", "warn", text, fix, facts)
    else:
        yield Check("disk", "ok", text, facts=facts)


def shared_memory(settings: Settings) -> Iterator[Check]:
    """Room in /dev/shm, where torch's workers exchange tensors."""
    try:
        usage = shutil.disk_usage(_SHM)
    except OSError as error:
        fix = "Mount a tmpfs there (containers: --shm-size=1g)."
        yield Check("shared memory", "fail", f"{_SHM} cannot be used: {error.strerror}", fix)
        return
    text = f"{show_bytes(usage.free)} of {show_bytes(usage.total)} free in {_SHM}"
    facts = {"free": usage.free, "total": usage.total}
    if usage.free < 256 << 20:
        fix = "Enlarge it (containers: --shm-size=1g); checkpoints then go to disk directly."
        yield Check("shared memory", "warn", text, fix, facts)
    else:
        yield Check("shared memory", "ok", text, facts=facts)


def memory(settings: Settings) -> Iterator[Check]:
    """What the cgroup and the machine leave."""
    limit, used, source = memory_limit()
    free = limit - used
    text = f"{show_bytes(free)} of {show_bytes(limit)} free ({source})"
    facts = {"free": free, "limit": limit, "source": source}
    if free < GIB:
        fix = "Run fewer workers, or raise the limit: a rank that imports torch needs 0.3 GiB."
        yield Check("memory", "warn", text, fix, facts)
    else:
        yield Check("memory", "ok", text, facts=facts)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("cores", "ok", f"{cores} for this process", facts={"cores": cores})


def ports(settings: Settings) -> Iterator[Check]:
    """Whether loopback answers, and whether the port of `penstock up` is free or its own."""
    with socket.create_server((_LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection((_LOOPBACK, port), timeout=5):
            pass
    proxies = [k for k in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY") if k in os.environ]
    bypass = os.environ.get("no_proxy", "") + os.environ.get("NO_PROXY", "")
    if proxies and _LOOPBACK not in bypass and "*" not in bypass:
        fix = f"Set no_proxy={_LOOPBACK},localhost for clients that honour proxies."
        yield Check("ports", "warn", f"{_LOOPBACK} answers, but {proxies[0]} is set", fix)
    else:
        yield Check("ports", "ok", f"{_LOOPBACK} answers")
    yield _port_of_up(UP_PORT)


def _port_of_up(port: int) -> Check:
    name = f"port {port}"
    try:
        socket.create_server((_LOOPBACK, port)).close()
    except OSError as error:
        return _taken(name, port, error)
    return Check(name, "ok", "free for `penstock up`")


def _taken(name: str, port: int, error: OSError) -> Check:
    found = listener(port)
    if found is None:
        who, facts = f"cannot be taken ({error.strerror}); by whom cannot be seen", {}
    else:
        facts = {"pid": found.pid, "process": found.name}
        who = f"{found.name} (pid {found.pid}) listens there"
        if found.is_up:
            return Check(name, "ok", f"`penstock up` (pid {found.pid}) listens there", facts=facts)
    fix = "`penstock up --port 0` takes a free one; or end what listens there."
    return Check(name, "warn", who, fix, facts)


def accelerators(settings: Settings) -> Iterator[Check]:
    """GPUs that the driver tells of, and whether the installed torch is built for them."""
    found = gpus()
    if found is None:
        yield Check("gpus", "ok", "none seen; training runs on the CPU", facts={"count": 0})
        return
    text = ", ".join(found) or "driver without devices"
    facts = {"count": len(found), "names": found}
    torch = torch_without_cuda()
    if found and torch is not None:
        fix = (
            "Install a build for CUDA; https://pytorch.org/get-started/locally has the command "
            "for this driver."
        )
        text += f"; torch {torch} is a build for CPUs only and sees none of it"
        yield Check("gpus", "warn", text, fix, {**facts, "torch": torch})
        return
    yield Check("gpus", "ok", text, facts=facts)


def existing(path: Path) -> Path:
    """The path itself or its nearest folder upwards that exists."""
    return next(each for each in (path, *path.parents) if each.exists())
