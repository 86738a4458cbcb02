"""Looks at what Penstock needs and says what is wrong and how to mend it.

Each check is one function from settings to `Check`s; none creates, locks or changes anything
(but one object in a remote blob store, removed at once), and one that breaks is itself a finding,
so that the doctor always finishes.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from penstock.base.errors import NetworkHome, PenstockError
from penstock.base.settings import FILE, PREFIX, Settings, project_folder
from penstock.base.units import show_bytes
from penstock.home.machine import gpus, memory_limit, mount_list
from penstock.home.views import Check

GIB = 1 << 30
_CORE = ("numpy", "pyarrow", "sqlalchemy", "alembic", "grpcio", "protobuf", "pydantic", "fastapi")
_EXTRAS = {  # extra -> (module to look for, what is missing without it)
    "torch": ("torch", "training and publishing models"),
    "onnx": ("onnxruntime", "serving, and loading models as ONNX"),
    "tensorboard": ("tensorboard", "forwarding scalars to TensorBoard"),
    "demo": ("sklearn", "`penstock demo`"),
}


def installation(settings: Settings) -> Iterator[Check]:
    """Python, platform, core packages and extras."""
    version = importlib.metadata.version("penstock")
    python = platform.python_version()
    if sys.platform == "linux":
        yield Check("penstock", "ok", f"{version} on Python {python}, Linux {platform.release()}")
    else:
        yield Check(
            "penstock",
            "warn",
            f"{version} on Python {python}, {sys.platform}, where nothing is tested",
            "Use workers=0 or 1, or run on Linux.",
        )
    found = {name: importlib.metadata.version(name) for name in _CORE}
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    yield Check("packages", "ok", text, facts=found)
    for extra, (module, without) in _EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            fix = f"pip install 'penstock[{extra}]'"
            yield Check(f"extra {extra}", "warn", f"not installed: no {without}", fix)
        else:
            distribution = {"sklearn": "scikit-learn"}.get(module, module)
            version = importlib.metadata.version(distribution)
            yield Check(f"extra {extra}", "ok", f"{distribution} {version}")


def settings_in_use(settings: Settings) -> Iterator[Check]:
    """Which settings differ from their defaults; never the value of a secret."""
    path = project_folder() / FILE
    variables = sorted(
        key
        for key in os.environ
        if key.startswith(PREFIX) and key.removeprefix(PREFIX).lower() in Settings.model_fields
    )
    sources = ([str(path)] if path.is_file() else []) + variables
    changed = {
        name: "***" if name == "token" else _without_secrets(str(getattr(settings, name)))
        for name, field in Settings.model_fields.items()
        if name != "home" and getattr(settings, name) != field.default
    }
    text = ", ".join(f"{key}={value}" for key, value in changed.items()) or "all default"
    origin = f"from {', '.join(sources)}" if sources else f"no {FILE}, no {PREFIX}*"
    yield Check("settings", "ok", f"{text} ({origin})", facts={"sources": sources, **changed})


def _without_secrets(text: str) -> str:
    """A URL without the user and the password that it should not have, or has (PostgreSQL)."""
    return re.sub(r"://[^/@]*@", "://***@", text)


def home_folder(settings: Settings) -> Iterator[Check]:
    """Where the home lies, whether it can be written, and on which kind of file system."""
    from penstock.meta.network import file_system, refuse_network

    home = settings.home
    nearest = existing(home).resolve()
    kind, mount = file_system(nearest, mount_list())
    facts = {"path": str(home), "file_system": kind, "mount": mount}
    if settings.meta is None:
        refuse_network(home)
    writable = os.access(nearest, os.W_OK) and not os.statvfs(nearest).f_flag & os.ST_RDONLY
    if not writable:
        fix = "Make it writable, or set PENSTOCK_HOME to another folder."
        yield Check(
            "home",
            "fail",
            f"{home} cannot be written ({kind or 'unknown file system'})",
            fix,
            facts,
        )
        return
    state = "" if home.exists() else ", not made yet"
    yield Check("home", "ok", f"{home} on {kind}{state}", facts=facts)


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
        usage = shutil.disk_usage("/dev/shm")
    except OSError as error:
        fix = "Mount a tmpfs there (containers: --shm-size=1g)."
        yield Check("shared memory", "fail", f"/dev/shm cannot be used: {error.strerror}", fix)
        return
    text = f"{show_bytes(usage.free)} of {show_bytes(usage.total)} free in /dev/shm"
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


def meta_store(settings: Settings) -> Iterator[Check]:
    """Whether the home's schema is one that this Penstock knows; an older one is left as it is."""
    from penstock.base.layout import Layout
    from penstock.meta import open_meta, schema

    file = settings.home / "meta.db"
    if settings.meta is None:
        version = schema.found_in(file)
        if version is None:
            yield Check("meta", "ok", "nothing stored yet")
            return
        if version != schema.HEAD:
            text = f"schema {version}; the next command brings it to {schema.HEAD}"
            yield Check("meta", "ok", text, facts={"schema": version})
            return
    url = settings.meta or Layout(settings.home).meta_url
    meta = open_meta(url)
    try:
        with meta.read() as reader:
            skew, events = abs(reader.now() - time.time()), reader.last_event()
    finally:
        meta.close()
    yield Check("meta", "ok", f"schema {schema.HEAD}, {events} events", facts={"events": events})
    if skew > 2:
        fix = "Synchronise this machine's clock (chrony, systemd-timesyncd)."
        yield Check("clock", "warn", f"{skew:.0f} s apart from the meta store's", fix)


def blob_store(settings: Settings) -> Iterator[Check]:
    """Whether the store answers, takes the credentials and honours conditional writes."""
    from penstock.base.layout import Layout
    from penstock.blobs import probe

    found = probe(settings.blobs or Layout(settings.home).blobs_url)
    facts = {"url": found.url, "seconds": found.seconds, "conditional": found.conditional}
    if found.conditional is None:
        yield Check("blobs", "ok", found.url, facts=facts)
        return
    text = f"{found.url} answers in {found.seconds * 1e3:.0f} ms, takes the credentials"
    if found.conditional:
        yield Check("blobs", "ok", f"{text}, honours conditional writes", facts=facts)
    else:
        fix = "Nothing is lost, but what exists already is written again; see docs/blobs.md."
        yield Check("blobs", "warn", f"{text}, but ignores conditional writes", fix, facts)


def clock(settings: Settings) -> Iterator[Check]:
    """A clock that is years off breaks leases for people and TLS for machines."""
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    newest = max((path.stat().st_mtime for path in _newest_files(settings)), default=0.0)
    if newest > time.time() + 60:
        fix = "Set this machine's clock; ages and take-overs are wrong until then."
        yield Check("clock", "warn", f"{text}, but the home has files from the future", fix)
    else:
        yield Check("clock", "ok", text)


def _newest_files(settings: Settings) -> list[Path]:
    candidates = (settings.home / "meta.db", settings.home / "meta.db-wal")
    return [path for path in candidates if path.exists()]


def loopback(settings: Settings) -> Iterator[Check]:
    """Whether a port on 127.0.0.1 can be opened and reached."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
    proxies = [k for k in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY") if k in os.environ]
    bypass = os.environ.get("no_proxy", "") + os.environ.get("NO_PROXY", "")
    if proxies and "127.0.0.1" not in bypass and "*" not in bypass:
        fix = "Set no_proxy=127.0.0.1,localhost for clients that honour proxies."
        yield Check("ports", "warn", f"127.0.0.1 answers, but {proxies[0]} is set", fix)
    else:
        yield Check("ports", "ok", "127.0.0.1 answers")


def accelerators(settings: Settings) -> Iterator[Check]:
    """GPUs, when the driver and nvidia-ml-py are there."""
    found = gpus()
    if found is None:
        yield Check("gpus", "ok", "none seen; training runs on the CPU", facts={"count": 0})
        return
    text = ", ".join(found) or "driver without devices"
    yield Check("gpus", "ok", text, facts={"count": len(found), "names": found})


CHECKS: tuple[tuple[str, Callable[[Settings], Iterator[Check]]], ...] = (
    ("installation", installation),
    ("settings", settings_in_use),
    ("home", home_folder),
    ("disk", disk),
    ("shared memory", shared_memory),
    ("memory", memory),
    ("meta", meta_store),
    ("blobs", blob_store),
    ("clock", clock),
    ("ports", loopback),
    ("gpus", accelerators),
)


def look(settings: Settings) -> list[Check]:
    """Every check in order; one that raises is a finding of its own."""
    found: list[Check] = []
    for name, check in CHECKS:
        try:
            found.extend(check(settings))
        except NetworkHome as error:
            if name == "home":  # other checks meet the same; once is enough
                found.append(Check(name, "fail", error.what, error.fix, error.facts))
        except PenstockError as error:
            found.append(Check(name, "fail", error.what, error.fix, {"code": error.code}))
        except Exception as error:  # noqa: BLE001 - the doctor must finish
            text = f"cannot be looked at: {type(error).__name__}: {error}"
            found.append(Check(name, "fail", text, "Tell us: this is not expected."))
    return found


def existing(path: Path) -> Path:
    """The path itself or its nearest folder upwards that exists."""
    return next(each for each in (path, *path.parents) if each.exists())
