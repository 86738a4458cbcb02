"""An agent for a controller elsewhere, started on this machine; by whom is the backend's to say.

Its folders lie in this machine's own home for such work, `PENSTOCK_NODE_HOME`, or else a folder of
the user's cache. What runs have in common stays there: snapshots, shards, compiled kernels.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from penstock.base.errors import PenstockError, Unavailable
from penstock.base.files import os_errors
from penstock.base.layout import Layout
from penstock.jobs.agent.door import FILE
from penstock.jobs.remains import clear
from penstock.jobs.rpc import Door

HOME = "PENSTOCK_NODE_HOME"
_PATIENCE = 30.0  # seconds for an agent to listen
_STARTS = 10.0  # seconds until an agent that starts has surely taken its seat
_FORGOTTEN = 7 * 86400.0  # seconds after which no rank of a run writes its signals any more
_END = 5.0  # seconds for it to end


def node_home() -> Path:
    """Where agents for controllers elsewhere have their folders."""
    said = os.environ.get(HOME)
    return Path(said) if said else Path.home() / ".cache" / "penstock" / "node"


def interface_of(host: str) -> str:
    """The network interface of this machine that has the address. Raises Unavailable."""
    wanted = ipaddress.ip_address(host)
    if wanted.is_loopback:
        return "lo"
    there = {}
    for name, addresses in psutil.net_if_addrs().items():
        for each in addresses:
            if each.family in (socket.AF_INET, socket.AF_INET6):
                there[ipaddress.ip_address(each.address.partition("%")[0])] = name
    if wanted not in there:
        raise Unavailable(
            f"this machine ({socket.gethostname()}) has no interface with the address {host}",
            f"It has {', '.join(str(each) for each in sorted(there, key=str))}.",
        )
    return there[wanted]


@dataclass
class Hosted:
    """An agent that this process started, and which ends with it."""

    name: str
    door: Door
    folder: Path
    child: subprocess.Popen[bytes]

    def is_alive(self) -> bool:
        return self.child.poll() is None

    def close(self) -> None:
        """End it, and all that it started; its folder goes too."""
        self.child.kill()
        self.child.wait(_END)
        clear(self.folder / "runtime")
        shutil.rmtree(self.folder, ignore_errors=True)


def new_name() -> str:
    """Of an agent; no other ever has it."""
    return f"node-{secrets.token_hex(4)}"


def host(name: str, spec: dict[str, Any], address: str, caches: Path | None = None) -> Hosted:
    """Start an agent that listens at an address of this machine.

    spec    of `orders.for_agent`, and the "generation" that wants it
    caches  home of what its runs have in common; default: this machine's
    Raises Unavailable when it does not come up, with the end of its log.
    """
    home = node_home()
    caches = caches or home
    _sweep(home, caches)
    folder = home / "agents" / name
    runtime, logs = folder / "runtime", folder / "logs"
    with os_errors("making the folders of an agent", folder):
        for each in (home, caches):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        for each in (folder, runtime, logs):
            each.mkdir(mode=0o700)
    whole = {
        **spec,
        "logs": str(logs),
        "scratch": str(folder / "scratch"),
        "runtime": str(runtime),
        "cwd": str(folder),
        "controller": None,
        "controller_pid": 0,
        "parent": os.getpid(),
        "node": {"home": str(caches), "paths": None},
        "elsewhere": {"host": address, "interface": interface_of(address)},
    }
    (runtime / "agent-spec.json").write_text(json.dumps(whole))
    with (logs / "agent.log").open("ab") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "penstock.jobs.agent", str(runtime / "agent-spec.json")],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=folder,
            start_new_session=True,
        )
    door = _await_door(runtime / FILE, child, logs / "agent.log")
    return Hosted(name, door, folder, child)


def _await_door(file: Path, child: subprocess.Popen[bytes], log: Path) -> Door:
    deadline = time.monotonic() + _PATIENCE
    while not file.exists():
        if child.poll() is not None or time.monotonic() > deadline:
            child.kill()
            child.wait()
            raise Unavailable(
                "an agent did not come up: " + log.read_text(errors="replace")[-1000:],
                "The end of its log is above.",
            )
        time.sleep(0.01)
    return Door(**json.loads(file.read_text()))


def _sweep(home: Path, caches: Path) -> None:
    """What agents left whose machine lost its power. A live one holds its seat."""
    for folder in (home / "agents").glob("node-*"):
        with suppress(OSError, PenstockError):
            if time.time() - folder.stat().st_mtime < _STARTS or _is_held(folder / "runtime"):
                continue
            clear(folder / "runtime")
            shutil.rmtree(folder, ignore_errors=True)
    for folder in (caches / "runs").glob("*"):
        with suppress(OSError):
            if time.time() - (folder / "signals").stat().st_mtime > _FORGOTTEN:
                shutil.rmtree(folder, ignore_errors=True)


def _is_held(runtime: Path) -> bool:
    with (runtime / "agent.lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def forget(run_id: str, caches: Path | None = None) -> None:
    """What a run that ended left in this machine's home: its signals, which were copied, and
    folders of agents that had no time to remove them."""
    for folder in (node_home() / "agents").glob("node-*"):
        with suppress(OSError, ValueError, PenstockError):
            spec = json.loads((folder / "runtime" / "agent-spec.json").read_text())
            if spec["run_id"] == run_id and not _is_held(folder / "runtime"):
                clear(folder / "runtime")
                shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(Layout(caches or node_home()).run(run_id), ignore_errors=True)
