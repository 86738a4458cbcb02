"""The image: a warm process that only forks.

It imports what its gang needs (torch takes two seconds) and then waits. It never starts a thread,
opens a gRPC channel, touches a GPU or runs an operator, so a fork of it is as good as a new
process and costs milliseconds. It belongs to the agent: it dies with it, and its children die
with the image. Requests and answers travel on one channel:

    -> {"fork": {key, name, log, entry, payload, env}} + [channel, words?, listener?]
    <- {"forked": pid, "key"} | {"exited": pid, "status": wait status}
       | {"ready": seconds, "left_out": {module of `preload`: why}}
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import select
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from penstock.base import process
from penstock.jobs import notices, preloading
from penstock.jobs.wire import Channel, Closed


def main(argv: list[str]) -> None:
    """`python -m penstock.jobs.image FD PARENT MODULE…`; `preloading` tells which it leaves out."""
    began = time.monotonic()
    process.die_with_parent(int(argv[1]))
    process.set_name("penstock-image")
    channel = Channel(socket.socket(fileno=int(argv[0])))
    wake = wake_on_child()
    preloading.warm("penstock.jobs.image", argv)
    _be(channel, wake, began)


def be_forked(theirs: socket.socket, parent: int, log: Path, environment: dict[str, str]) -> None:
    """In a fork of a process that is warm: be its image. Never returns.

    parent       the agent, with which it dies
    environment  of the images; what is read at import was set before the import
    """
    began = time.monotonic()
    process.die_with_parent(parent)
    os.setsid()
    process.set_name("penstock-image")
    wake = wake_on_child()
    redirect(log)
    os.environ.update(environment)
    gc.freeze()
    _be(Channel(theirs), wake, began)


def _be(channel: Channel, wake: int, began: float) -> None:
    try:
        left_out = preloading.left_out
        channel.send({"ready": time.monotonic() - began, "left_out": left_out})
        _serve(channel, wake)
    except Closed:
        os._exit(0)


def wake_on_child() -> int:
    """A descriptor that can be read when a child has ended. Ctrl-C is not for such processes."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    notices.ignore_sigterm()
    return reader


def _serve(channel: Channel, wake: int) -> None:
    while True:
        ready, _, _ = select.select([channel.fileno(), wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            reap(channel)
        if channel.fileno() in ready:
            waiting = channel.drain()
            while waiting:
                message, fds = waiting.pop(0)
                others = [fd for _, their_fds in waiting for fd in their_fds]
                _fork(channel, message["fork"], fds, others, wake)


def reap(channel: Channel) -> None:
    """Collect the children that ended, and tell how. Raises Closed."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        channel.send({"exited": pid, "status": status})


def _fork(
    channel: Channel, request: dict[str, Any], fds: list[int], others: list[int], wake: int
) -> None:
    """others  descriptors of the next requests: a child that kept them would keep their channels
    open when they die"""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            for fd in others:
                os.close(fd)
            _become(request, fds, parent, channel, wake)
        finally:
            os._exit(70)  # only reached when the entry could not even be called
    for fd in fds:
        os.close(fd)
    channel.send({"forked": pid, "key": request["key"]})


def _become(
    request: dict[str, Any], fds: list[int], parent: int, channel: Channel, wake: int
) -> None:
    """In the child: a session, a log, an environment of its own; then the entry. Never returns."""
    process.die_with_parent(parent)
    os.setsid()
    process.set_name(request["name"])
    forget_signals()
    notices.leave_sigterm_to_the_controller()
    channel.close()
    os.close(wake)
    redirect(Path(request["log"]))
    os.environ.update(request["env"])
    random.seed()
    code = 1
    try:
        module, _, name = request["entry"].partition(":")
        entry = getattr(importlib.import_module(module), name)
        entry(Channel(socket.socket(fileno=fds[0])), fds[1:], request["payload"])
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - the last frame of a process: show it and leave
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # not sys.exit: the image's frames and exit handlers are not this process's


def forget_signals() -> None:
    """In a child: what `wake_on_child` set up is not its own."""
    writer = signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if writer >= 0:
        os.close(writer)


def redirect(log: Path) -> None:
    """Standard input from nowhere, output and errors to the end of a file."""
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(null)
    os.close(out)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


if __name__ == "__main__":
    main(sys.argv[1:])
