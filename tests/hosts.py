"""Hosts of the tests' own: each has a network, processes, mounts, shared memory and a name apart.

All are on one bridge with this machine, which has two addresses there: what a test starts itself
(a controller) speaks from the first, services (PostgreSQL, an object store) lie on the second, so
that a host can be cut off from the one and not from the other. A host's disk outlives its power.

Several processes may have hosts at once: each holds the lock of a number, which names all that it
makes; what a killed one left is swept by the next. A host ends with the process that started it.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_HOME = Path("/tmp/penstock-hosts")
_NUMBERS = range(1, 200)
_PATIENCE = 20.0  # seconds for a host to be up, or gone
_MANY = range(1, 10)  # hosts of one bridge
_RAYS = (
    "raylet", "gcs_server", "ray::IDLE", "ray::Observer", "ray::Dashboard", "ray::RuntimeEnv",
    "log_monitor", "ray.util.client.server", "ray.scripts", "setup_worker", "default_worker",
)  # fmt: skip
# Whoever is process 1 of a host: it ends, and with it all others, when its standard input does.
_FIRST = """
set -e
mount --bind {disk} /mnt
mount --bind {names} /etc/hosts
mkdir -p {stage}
mount -t tmpfs -o mode=1777 tmpfs {stage}
for path in {shown}; do
    mkdir -p {stage}/${{path#/tmp/}}
    mount --rbind $path {stage}/${{path#/tmp/}}
done
mount --move {stage} /tmp
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter  # what cannot be answered does not come in
hostname {name}
mkdir /tmp/home
echo up
while read -r _; do :; done
"""


class Host:
    """One machine. Owned by its `Hosts`."""

    def __init__(self, hosts: Hosts, place: int) -> None:
        self.name = f"pst{hosts.number}h{place}"
        self.address = f"{hosts.net}.{10 + place}"
        self.disk = hosts.folder / f"disk-{place}"  # /mnt there
        self._hosts = hosts
        self._outer: subprocess.Popen[str] | None = None
        self._first = 0  # its process 1, as this machine counts
        self._cut_from: tuple[str, ...] = ()
        self._entered: list[subprocess.Popen[bytes]] = []

    # -- power ----------------------------------------------------------------------------------

    def start(self) -> None:
        self.disk.mkdir(exist_ok=True)
        _ip("netns", "add", self.name)
        _ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("link", "set", self.name, "master", self._hosts.bridge, "up")
        _ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            _ip("-n", self.name, "link", "set", link, "up")
        _ip("-n", self.name, "route", "add", "default", "via", self._hosts.address)
        self._outer = subprocess.Popen(
            ["ip", "netns", "exec", self.name, "unshare", "--mount", "--pid", "--uts", "--ipc",
             "--fork", "--kill-child", "--mount-proc", "bash", "-c", self._script()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        assert self._outer.stdout is not None
        assert self._outer.stdout.readline() == "up\n", f"{self.name} does not come up"
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        (self._first,) = map(int, children.read_text().split())

    def _script(self) -> str:
        return _FIRST.format(
            disk=self.disk,
            names=self._hosts.folder / "names",
            stage=self._hosts.folder / "stage",
            shown=" ".join(
                shlex.quote(str(path)) for path in _needed_below_tmp(self._hosts.shared)
            ),
            name=self.name,
        )

    @property
    def is_up(self) -> bool:
        return self._outer is not None

    def power_cut(self) -> None:
        """Nobody takes leave: the link is down before the first process is gone."""
        if self._outer is None:
            return
        _ip("link", "set", self.name, "down")
        self._outer.kill()
        self._outer.communicate()
        self._outer, self._cut_from = None, ()
        self._wake_the_entered()
        deadline = time.monotonic() + _PATIENCE
        while _state(self._first) not in ("", "Z"):
            _collect()
            assert time.monotonic() < deadline, f"{self.name} does not go"
            time.sleep(0.005)
        for each in self._entered:
            each.wait()
        self._entered.clear()
        _ip("netns", "del", self.name)
        _gone(self.name)

    # -- the network ----------------------------------------------------------------------------

    def cut(self, *only: str) -> None:
        """Off the network, or off these addresses alone; all on it goes on."""
        if not only:
            _ip("link", "set", self.name, "down")
        for address in only:
            _ip("-n", self.name, "route", "add", "blackhole", address)
        self._cut_from = only

    def heal(self) -> None:
        if not self.is_up:
            return
        for address in self._cut_from:
            _ip("-n", self.name, "route", "del", "blackhole", address)
        self._cut_from = ()
        _ip("link", "set", self.name, "up")

    # -- processes ------------------------------------------------------------------------------

    def pids(self, text: str = "") -> list[int]:
        """Of its processes whose command line or name has the text, as this machine counts."""
        return [pid for pid in self._all() if text in f"{_name(pid)} {_words(pid)}"]

    def _all(self) -> Iterator[int]:
        space = Path(f"/proc/{self._first}/ns/pid").stat().st_ino if self.is_up else -1
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (entry / "ns/pid").stat().st_ino == space and entry.name != str(self._first):
                    yield int(entry.name)

    def freeze(self) -> None:
        """Every process of it stops at once; what they have open stays open."""
        stopped: set[int] = set()
        while new := set(self._all()) - stopped:
            self.signal(signal.SIGSTOP, new)
            stopped |= new

    def kill_all(self) -> None:
        """Every process of it at one moment; the host stays up."""
        for number in (signal.SIGSTOP, signal.SIGKILL):
            self.signal(number, list(self._all()))
        self._wake_the_entered()
        deadline = time.monotonic() + _PATIENCE
        while any(_state(pid) not in ("", "Z") for pid in self._all()):
            _collect()
            assert time.monotonic() < deadline, f"{self.name}: not all of it dies"
            time.sleep(0.005)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT, self._all())
        self._wake_the_entered()

    def _wake_the_entered(self) -> None:
        """Whoever waits for a process there stops when that stops, and collects nothing then."""
        self.signal(signal.SIGCONT, [each.pid for each in self._entered])

    @staticmethod
    def signal(number: int, pids: Iterable[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def run(self, *command: str, env: Mapping[str, str] | None = None, seconds: float = 60) -> str:
        """What a command there prints; it has to succeed."""
        done = subprocess.run(
            self._inside(command), env=self.environment(env), capture_output=True, text=True,
            timeout=seconds,
        )  # fmt: skip
        assert done.returncode == 0, f"{self.name}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def begin(self, *command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A command that goes on there; what it says is in `said`. The process that is returned
        only waits for it: see `pids`."""
        with (self._hosts.folder / f"{self.name}.log").open("ab") as log:
            found = subprocess.Popen(
                self._inside(command), env=self.environment(env), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._entered.append(found)
        return found

    def talk(self, *command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """A command there that is spoken to. It ends with its input."""
        return subprocess.Popen(
            self._inside(command), env=self.environment(env), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        )  # fmt: skip

    def said(self) -> str:
        path = self._hosts.folder / f"{self.name}.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        own = {"HOME": "/tmp/home", "PENSTOCK_NODE_HOME": "/mnt/node", "TMPDIR": "/tmp"}
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PENSTOCK_")}
        return {**kept, **own, **(more or {})}

    def _inside(self, command: tuple[str, ...]) -> list[str]:
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid"]
        return ["nsenter", "--target", str(self._first), *spaces, "--", *command]

    # -- what stays -----------------------------------------------------------------------------

    def left(self) -> list[str]:
        """What only a run that goes on may have here: processes, shared memory, temporary files,
        folders of agents and runs. Those that Ray and torch make for themselves do not count."""
        assert self.is_up
        found = [
            f"process {pid} {_name(pid)} {_words(pid)}"
            for pid in self._all()
            if _state(pid) not in ("", "Z") and not self._is_of_ray(pid)
        ]
        root = Path(f"/proc/{self._first}/root")
        shared = [path for path in root.glob("dev/shm/*") if not path.name.startswith("plasma")]
        ours = {"ray", "home", "torchinductor_root", ".ses"}
        ours |= {path.parts[2] for path in _needed_below_tmp(self._hosts.shared)}
        files = [path for path in root.glob("tmp/*") if path.name not in ours]
        folders = [*self.disk.glob("node/agents/*"), *self.disk.glob("node/runs/*")]
        return found + [str(path) for path in [*shared, *files, *folders]]

    def _is_of_ray(self, pid: int) -> bool:
        said = f"{_name(pid)} {_words(pid)}"
        return any(each in said for each in _RAYS) or self._is_entered(pid)

    def _is_entered(self, pid: int) -> bool:
        """Begun by the test itself, as Ray's own starter is."""
        return _parent(pid) in {each.pid for each in self._entered}


class Hosts:
    """A bridge and the hosts on it. Ends by `close`; the lock of its number goes with this process.

    shared  folders that all of them see as this machine does, as on a network disk
    Owns all links, namespaces, processes and files that have its number in their names.
    """

    def __init__(self, count: int = 0, shared: Sequence[Path] = ()) -> None:
        self.shared = shared
        _HOME.mkdir(mode=0o700, exist_ok=True)
        self.number, self._lock = _take_a_number()
        self.net = f"10.77.{self.number}"
        self.address, self.services = f"{self.net}.1", f"{self.net}.2"
        self.bridge = f"pst{self.number}"
        self.folder = _HOME / str(self.number)
        _sweep(self.number)
        self.folder.mkdir()
        self._write_names()
        _ip("link", "add", self.bridge, "type", "bridge")
        for address in (self.address, self.services):
            _ip("addr", "add", f"{address}/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")
        self._all: list[Host] = []
        for _ in range(count):
            self.add()

    def add(self) -> Host:
        """One more, which is up."""
        host = Host(self, len(self._all) + 1)
        self._all.append(host)
        host.start()
        return host

    def __iter__(self) -> Iterator[Host]:
        return iter(self._all)

    def __getitem__(self, place: int) -> Host:
        return self._all[place]

    def close(self) -> None:
        for host in self._all:
            host.power_cut()
        _sweep(self.number)
        os.close(self._lock)

    def _write_names(self) -> None:
        """There is no server for names. torch asks for that of an IPv4 address mapped into IPv6,
        and without an answer each gang begins ten seconds later."""
        names = [
            f"{mapped}{self.net}.{10 + place} pst{self.number}h{place}"
            for place in _MANY
            for mapped in ("", "::ffff:")
        ]
        (self.folder / "names").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))


def _needed_below_tmp(shared: Iterable[Path]) -> list[Path]:
    """What a host has to see although its /tmp is its own: Python, its packages, this checkout."""
    tmp = Path("/tmp")
    needed = [ROOT, Path(sys.prefix), Path(sys.base_prefix), *map(Path, sys.path), *shared]
    below = {path.resolve() for path in needed} - {tmp}
    below = {path for path in below if path.is_relative_to(tmp) and path.exists()}
    return sorted(path for path in below if not below & set(path.parents))


def needs_namespaces() -> None:
    """Skips where there are none to be had; in CI that fails."""
    if os.getuid() == 0 and shutil.which("ip") and shutil.which("nsenter"):
        return
    assert "CI" not in os.environ, "CI must be root and have iproute2, or these faults go untested"
    pytest.skip("needs root, and iproute2, for hosts in namespaces")


def _take_a_number() -> tuple[int, int]:
    """The first that nobody has; what others left that nobody has any more is swept on the way."""
    mine: tuple[int, int] | None = None
    for number in _NUMBERS:
        path = _HOME / f"{number}.lock"
        if mine is not None and not path.exists():
            continue
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        if mine is None:
            mine = number, lock
        else:
            _sweep(number)
            os.close(lock)
    assert mine is not None, "all numbers are taken"
    return mine


def _sweep(number: int) -> None:
    """All that has this number, whose lock we hold."""
    for name in _listed("netns"):
        if name.startswith(f"pst{number}h"):
            for pid in subprocess.run(
                ["ip", "netns", "pids", name], capture_output=True, text=True, check=False
            ).stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            _ip("netns", "del", name)
            _gone(name)
    if Path(f"/sys/class/net/pst{number}").exists():
        _ip("link", "del", f"pst{number}")
    shutil.rmtree(_HOME / str(number), ignore_errors=True)


def _gone(link: str) -> None:
    """The kernel takes a namespace's links away a little later; the name has to be free."""
    deadline = time.monotonic() + _PATIENCE
    while Path(f"/sys/class/net/{link}").exists():
        with suppress(AssertionError):
            _ip("link", "del", link)
        assert time.monotonic() < deadline, f"{link} does not go"


def _listed(what: str) -> list[str]:
    done = subprocess.run(["ip", what, "list"], capture_output=True, text=True, check=True)
    return [line.split()[0] for line in done.stdout.splitlines() if line.strip()]


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def _read(pid: int, name: str) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes().replace(b"\0", b" ").decode().strip()
    return ""


def _name(pid: int) -> str:
    return _read(pid, "comm")


def _words(pid: int) -> str:
    return _read(pid, "cmdline")


def _state(pid: int) -> str:
    return _read(pid, "stat").rpartition(") ")[2][:1]


def _collect() -> None:
    """The dead of other process namespaces that came to this process, where it is a subreaper: a
    namespace ends when all of its own are collected."""
    for file in Path("/proc/self/task").glob("*/children"):
        for pid in map(int, file.read_text().split()):
            names = _read(pid, "status").partition("NSpid:")[2].partition("\n")[0].split()
            if _state(pid) == "Z" and len(names) > 1:
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def _parent(pid: int) -> int:
    return int((_read(pid, "stat").rpartition(") ")[2].split() or ["", "0"])[1])
