"""`python -m penstock.jobs.nursery FD PARENT MODULE…`: import once, fork controllers and agents.

A fork of this process has imported torch, so an agent forks its image from itself before it has a
thread, and a second run of a script starts in milliseconds. Parents are as without it: the image is
the agent's child (PDEATHSIG), ranks are the image's. Only controllers and agents are children of
the nursery, and they need no parent: a detached run goes on when the nursery ends.

Owned by the script. It ends with it: PDEATHSIG, and the end of the channel FD. It has no Python
thread, no gRPC channel, no open store, and runs no operator. Messages:

    script      -> {"begin": surroundings}, {"serve": path} + [listener], {"fork": {command, log}}
                <- {"ready": True}, {"forked": pid}, {"exited": pid, "status": wait status}
    controller  -> {"agent": {spec, log}, **surroundings}           on a listener
                <- {"forked": pid} | {"refused": why}

surroundings: preload, image_env, cwd; the script's also environment, of what is forked, and later,
modules that only controllers need.
"""

from __future__ import annotations

import importlib
import os
import random
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.base import process
from penstock.jobs import image, preloading
from penstock.jobs.wire import Channel, Closed

_AGENT = "penstock.jobs.agent.__main__"
_STORES = ["penstock.meta.preload", "penstock.blobs.local"]
_IDLE = 0.5  # seconds without a request, after which it imports what controllers need
_PATIENCE = 1.0  # seconds for a controller that has connected to say what it wants


class Nursery:
    """Owns its channel to the script, and a listener for each run that it serves."""

    def __init__(self, channel: Channel, wake: int, begin: dict[str, Any]) -> None:
        self._channel = channel
        self._wake = wake
        self._environment = begin.pop("environment")
        self._later = [*_STORES, *begin.pop("later")]  # the first run's controller is not from here
        self._used = False
        self._surroundings = begin
        self._listeners: dict[int, tuple[socket.socket, str]] = {}

    def serve(self) -> None:
        """Until the script is gone: raises Closed."""
        self._hear_all()  # what came with the first message
        while True:
            watched = [self._channel.fileno(), self._wake, *self._listeners]
            waiting = _IDLE if self._used and self._later else None
            ready, _, _ = select.select(watched, [], [], waiting)
            if not ready:
                self._import_the_rest()
            if self._wake in ready:
                os.read(self._wake, 4096)
                image.reap(self._channel)
            for fd in ready:
                if fd in self._listeners:
                    self._answer(self._listeners[fd][0])
            if self._channel.fileno() in ready:
                self._hear_all()

    def _import_the_rest(self) -> None:
        if self._later:
            preloading.more(self._later)
        self._later = []

    def _hear_all(self) -> None:
        for message, fds in self._channel.drain():
            self._hear(message, fds)

    def _hear(self, message: dict[str, Any], fds: list[int]) -> None:
        if "serve" in message:
            for fd, (listener, path) in list(self._listeners.items()):
                if not Path(path).exists():  # its run ended
                    listener.close()
                    del self._listeners[fd]
            self._listeners[fds[0]] = socket.socket(fileno=fds[0]), message["serve"]
        elif "fork" in message:
            wanted = message["fork"]
            self._import_the_rest()
            module, *arguments = wanted["command"]
            pid = self._fork(wanted["log"], lambda: _main_of(module)(arguments))
            self._channel.send({"forked": pid})

    def _answer(self, listener: socket.socket) -> None:
        """A controller wants an agent. One that did not wait for it gets none."""
        channel = Channel(listener.accept()[0])
        try:
            found = channel.receive(_PATIENCE)
            if found is None:
                return
            asked = found[0]
            wanted = asked.pop("agent")
            if asked != self._surroundings:
                channel.send({"refused": "it has other surroundings"})
                return
            if select.select([channel.fileno()], [], [], 0)[0]:
                return  # the controller is gone
            main = _main_of(_AGENT)
            pid = self._fork(wanted["log"], lambda: main([wanted["spec"]], warm=True), channel)
            channel.send({"forked": pid})
        except Closed:
            return
        finally:
            channel.close()

    def _fork(self, log: str, call: Callable[[], Any], *others: Channel) -> int:
        self._used = True
        pid = os.fork()
        if pid:
            return pid
        try:
            for channel in (self._channel, *others):
                channel.close()
            for listener, _ in self._listeners.values():
                listener.close()
            os.close(self._wake)
            _become(log, self._environment, call)
        finally:
            os._exit(70)


def _main_of(module: str) -> Callable[..., Any]:
    found: Callable[..., Any] = importlib.import_module(module).main
    return found


def _become(log: str, environment: dict[str, str], call: Callable[[], Any]) -> None:
    """In the child: what a new process would be. Never returns."""
    os.setsid()
    image.forget_signals()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    image.redirect(Path(log))
    os.environ.clear()
    os.environ.update(environment)
    random.seed()
    code = 1
    try:
        code = call() or 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last frame of a process: show it and leave
        traceback.print_exc()
    threading._shutdown()  # type: ignore[attr-defined]  # as multiprocessing ends its children
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(argv: list[str]) -> None:
    process.die_with_parent(int(argv[1]))
    process.set_name("penstock-warm")
    channel = Channel(socket.socket(fileno=int(argv[0])))
    wake = image.wake_on_child()
    try:
        preloading.warm("penstock.jobs.nursery", argv)  # it may begin anew: nothing is read yet
        preloading.more([_AGENT])
        found = channel.receive()
        if threading.active_count() > 1:  # a fork of it would be half a process
            sys.exit("a module that was imported started a thread; nothing is forked from here")
        channel.send({"ready": True})
        assert found is not None
        Nursery(channel, wake, found[0]["begin"]).serve()
    except Closed:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
