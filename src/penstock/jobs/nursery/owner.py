"""The script's side of its nursery: started with the first run, used while nothing that an image
depends on has changed, ended with the script.

A script has at most one. It is replaced when the interpreter, the cores, the modules to import, the
images' environment, the working directory, or the script's own environment are no longer the same;
also when it died, or when this process is a fork of its owner. What it forked needs it no more.
"""

from __future__ import annotations

import atexit
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from penstock.jobs.nursery.asking import SOCKET
from penstock.jobs.wire import Channel, Closed

_PATIENCE = 5.0  # seconds for a nursery that is ready to fork
_UNKNOWN = -1  # return code of a process whose nursery died before it could tell


class ScriptsNursery:
    """One nursery process, owned by this one until `close`."""

    def __init__(self, surroundings: dict[str, Any], later: list[str]) -> None:
        self.key = _key(surroundings)
        self.ready = False
        self.serving: set[Path] = set()
        self._statuses: dict[int, int] = {}
        self._forked: list[int] = []
        self._channel, theirs = Channel.pair()
        command = [sys.executable, "-m", "penstock.jobs.nursery", str(theirs.fileno())]
        self._over = threading.Event()
        with theirs:
            self._process = _by_a_lasting_thread(
                lambda: subprocess.Popen(
                    [*command, str(os.getpid()), *surroundings["preload"]],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # what fails here is told by who goes without it
                    cwd=surroundings["cwd"],
                    env={**os.environ, **surroundings["image_env"]},
                    start_new_session=True,  # Ctrl-C is this process's
                ),
                self._over,
            )
        also = {"environment": dict(os.environ), "later": later}
        self._channel.send({"begin": {**surroundings, **also}})

    @property
    def pid(self) -> int:
        return self._process.pid

    def serve(self, runtime: Path, only_ready: bool) -> None:
        """Fork agents for the run with this folder, as soon as it is ready. Raises Closed."""
        self._listen(0)
        if only_ready and not self.ready:
            return
        path = runtime / SOCKET
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen(8)
            self._channel.send({"serve": str(path)}, (listener.fileno(),))
        self.serving.add(runtime)

    def start(self, command: list[str], log: Path) -> Forked | None:
        """Fork a process that runs `python -m MODULE …`; None when it is not ready. Raises
        Closed."""
        self._listen(0)
        if not self.ready or command[:2] != [sys.executable, "-m"]:
            return None
        self._channel.send({"fork": {"command": command[2:], "log": str(log)}})
        deadline = time.monotonic() + _PATIENCE
        while not self._forked:
            self._listen(deadline - time.monotonic())
            if time.monotonic() > deadline:
                raise Closed("the nursery does not answer")
        return Forked(self, self._forked.pop())

    def status_of(self, pid: int) -> int:
        """The exit code of a process that has ended; -1 where nobody can tell it any more."""
        deadline = time.monotonic() + 0.2
        try:
            while pid not in self._statuses and time.monotonic() < deadline:
                self._listen(0.05)
        except (Closed, OSError, ValueError):  # it died, or was replaced and closed
            return _UNKNOWN
        status = self._statuses.pop(pid, None)
        return _UNKNOWN if status is None else os.waitstatus_to_exitcode(status)

    def _listen(self, timeout: float) -> None:
        if not select.select([self._channel.fileno()], [], [], max(0.0, timeout))[0]:
            return
        for message, _ in self._channel.drain():
            self.ready |= "ready" in message
            if "forked" in message:
                self._forked.append(message["forked"])
            if "exited" in message:
                self._statuses[message["exited"]] = message["status"]

    def is_of(self, surroundings: dict[str, Any]) -> bool:
        """Whether it lives, and an image of it would be as a new one."""
        return self.key == _key(surroundings) and self._process.poll() is None

    def close(self) -> None:
        self._over.set()
        self._channel.close()
        if self.key[0] == os.getpid() and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def _by_a_lasting_thread(
    start: Callable[[], subprocess.Popen[bytes]], over: threading.Event
) -> subprocess.Popen[bytes]:
    """PDEATHSIG comes when the thread ends that started a process, not only when its process does:
    so not by whichever thread trains first."""
    if threading.current_thread() is threading.main_thread():
        return start()
    made: Future[subprocess.Popen[bytes]] = Future()

    def stay() -> None:
        try:
            made.set_result(start())
        except OSError as error:
            made.set_exception(error)
        else:
            over.wait()

    threading.Thread(target=stay, name="nursery", daemon=True).start()
    return made.result()


class Forked:
    """A process that a nursery forked, as `subprocess.Popen` shows its own."""

    def __init__(self, nursery: ScriptsNursery, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except ProcessLookupError:
            self._pidfd = None

    def poll(self) -> int | None:
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit code; None when it has not ended after `timeout` seconds."""
        if self.returncode is None:
            if self._pidfd is not None:
                if not select.select([self._pidfd], [], [], timeout)[0]:
                    return None
                os.close(self._pidfd)
                self._pidfd = None
            with _gate:
                self.returncode = self._nursery.status_of(self.pid)
        return self.returncode


_gate = threading.Lock()
_own: ScriptsNursery | None = None


def begin(surroundings: dict[str, Any], later: tuple[str, ...]) -> None:
    """Have a nursery that fits, if need be a new one.

    later  modules that controllers import
    """
    global _own
    with _gate:
        if _own is not None and not _own.is_of(surroundings):
            _own.close()
            _own = None
        if _own is None:
            _own = _close_if_gone(ScriptsNursery, surroundings, [*later])


def serve(surroundings: dict[str, Any], runtime: Path, only_ready: bool = False) -> None:
    """Have this process's nursery, where it fits, fork agents for a run.

    only_ready  not one that still imports; for scripts that are about to end
    """
    with _gate:
        if _own is not None and _own.is_of(surroundings):
            _close_if_gone(_own.serve, runtime, only_ready)


def serves(runtime: Path) -> bool:
    """Whether this process's nursery fits the run with this runtime folder."""
    return _own is not None and _own.key[0] == os.getpid() and runtime in _own.serving


def start(command: list[str], log: Path) -> Forked | None:
    """A process from the nursery; None where a new one is to be started instead."""
    with _gate:
        return None if _own is None else _close_if_gone(_own.start, command, log)


def _close_if_gone(call: Any, *arguments: Any) -> Any:
    global _own
    try:
        return call(*arguments)
    except (Closed, OSError):  # without it everything goes on, colder
        if _own is not None:
            _own.close()
        _own = None
        return None


@atexit.register
def end() -> None:
    """End this process's nursery."""
    global _own
    if _own is not None:
        _own.close()
        _own = None


def _key(surroundings: dict[str, Any]) -> tuple[Any, ...]:
    cores = sorted(os.sched_getaffinity(0))
    return os.getpid(), sys.executable, cores, sorted(os.environ.items()), surroundings
