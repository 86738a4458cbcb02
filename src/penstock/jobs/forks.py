"""Processes forked from an image of this process's own, for where there is no agent: a notebook,
a plain script, workers=0.

The image starts with the first fork (about a second for what it imports) and serves this process
until it ends: it dies with the thread that started it (PDEATHSIG), what it forked dies with it. A
dead image is replaced by the next fork.
"""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import threading
from typing import Any

from penstock.base.errors import Unavailable
from penstock.jobs.environment import of_data_workers
from penstock.jobs.wire import Channel, Closed


class OwnImage:
    """One image, owned by this process until `close`.

    preload  modules that it imports before it forks
    """

    def __init__(self, *preload: str) -> None:
        self.owner = os.getpid()
        self._channel, theirs = Channel.pair()
        command = [sys.executable, "-m", "penstock.jobs.image", str(theirs.fileno())]
        self._process = subprocess.Popen(
            [*command, str(os.getpid()), *preload],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **of_data_workers()},
            start_new_session=True,  # Ctrl-C is this process's
        )
        theirs.close()

    def fork(self, name: str, entry: str, payload: dict[str, Any]) -> socket.socket:
        """A new process that calls `entry`; the socket is its channel. Raises Closed."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        request = {"name": name, "log": "/proc/self/fd/2", "entry": entry, "payload": payload}
        request["env"] = {"PENSTOCK_RANK": name}  # scripts that it imports are not to run again
        try:
            self._channel.drain()  # what it said of others; nobody waits for it
            self._channel.send({"fork": {**request, "key": name}}, (theirs.fileno(),))
        except Closed:
            mine.close()
            raise
        finally:
            theirs.close()
        return mine

    def close(self) -> None:
        self._channel.close()
        if self.owner == os.getpid() and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


_own: OwnImage | None = None
_gate = threading.Lock()


def fork(name: str, entry: str, payload: dict[str, Any]) -> socket.socket:
    """From this process's image, started if need be. Raises Unavailable when there is none to be
    had."""
    with _gate:
        for _ in range(2):
            image = _image(entry.partition(":")[0], *(["torch"] if "torch" in sys.modules else []))
            try:
                return image.fork(name, entry, payload)
            except Closed:
                end()
    raise Unavailable(
        "no process can be forked for data: the image does not start",
        "Its error is above; workers=0 works without it.",
    )


def _image(*preload: str) -> OwnImage:
    global _own
    if _own is None or _own.owner != os.getpid():
        _own = OwnImage(*preload)
        atexit.register(end)
    return _own


def end() -> None:
    """End this process's image, and with it what it forked."""
    global _own
    if _own is not None:
        _own.close()
        _own = None
