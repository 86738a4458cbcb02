"""The image and its children: how they are born, what they say, how they are buried.

Owns the image (a child process) and the list of all its children that live. What a birth, a word
or a death means is the loop's to know: see `Parent`.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any, Protocol

from penstock.base import log
from penstock.jobs.agent import census
from penstock.jobs.agent.children import Child
from penstock.jobs.agent.eyes import Eyes
from penstock.jobs.agent.sessions import end_session
from penstock.jobs.agent.warm import WarmImage
from penstock.jobs.wire import Closed

_log = log.logger("agent")


class Parent(Protocol):
    """What the loop does about its children."""

    def on_ready(self, seconds: float, left_out: dict[str, str]) -> None:
        """An image has imported everything and can fork, but for modules that it left out:
        module -> why."""
        ...

    def on_broken(self, words: str) -> None:
        """The image cannot start; the end of its log."""
        ...

    def on_born(self, child: Child) -> None: ...
    def on_said(self, child: Child, kind: str, body: dict[str, Any]) -> None: ...
    def on_dead(self, child: Child, seen: float) -> None:
        """All that it said was heard; its channel is not closed yet.

        seen  wall clock, when its death was noticed
        """
        ...


class Family:
    """See the module. Used by the agent's one thread."""

    def __init__(self, spec: dict[str, Any], eyes: Eyes, parent: Parent) -> None:
        self.alive: list[Child] = []
        self.image: WarmImage
        self._spec = spec
        self._eyes = eyes
        self._parent = parent
        self._unborn: dict[str, Child] = {}
        self._forks = 0

    # -- the image ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the image; to be called once."""
        self._start_image()
        self._take_census()

    def _start_image(self) -> None:
        self.image = WarmImage(self._spec)
        self._eyes.watch(self.image.channel, self._on_image)

    def _on_image(self) -> None:
        image = self.image
        try:
            messages = image.channel.drain()
        except Closed:
            self._image_died(image)
            return
        for message, _ in messages:
            if "ready" in message:
                image.ready = True
                self._parent.on_ready(message["ready"], message["left_out"])
            elif "forked" in message:
                self._born(self._unborn.pop(message["key"]), message["forked"])
            elif "exited" in message:
                self._exited(message["exited"], message["status"])

    def _image_died(self, image: WarmImage) -> None:
        """Its children die with it. One that could not even start would not the next time."""
        self._eyes.forget(image.channel)
        could_start, image.ready = image.ready, False  # before the burials, which may fork anew
        _log.error("the image died", extra=log.facts(code=image.bury(), could_start=could_start))
        self._unborn.clear()
        for child in list(self.alive):
            self._bury(child)
        if could_start:
            self._start_image()
        else:
            self._parent.on_broken(image.last_words())

    # -- births and burials ---------------------------------------------------------------------

    def fork(self, child: Child, fds: list[int], theirs: socket.socket) -> None:
        """Ask the image for it. `theirs` and `fds` go with it; `theirs` is closed here."""
        self._forks += 1
        key = str(self._forks)
        child.request = {**child.request, "key": key}
        self._unborn[key] = child
        self.alive.append(child)
        try:
            self.image.channel.send({"fork": child.request}, (theirs.fileno(), *fds))
        except Closed:
            _log.error("the image is gone", extra=log.facts(child=key))  # its own end tells more
        theirs.close()
        self._eyes.watch(child.channel, lambda: self._on_child(child))

    def _born(self, child: Child, pid: int) -> None:
        child.born(pid)
        if child.pidfd is not None:
            self._eyes.watch(child.pidfd, lambda: self._on_pidfd(child))
        self._take_census()
        self._parent.on_born(child)

    def _on_pidfd(self, child: Child) -> None:
        """The kernel says it is dead; its parent, the image, will say how: wait a little for it."""
        seen = time.time()
        if child.dead:
            return
        if child.pidfd is not None:
            self._eyes.forget(child.pidfd)
        deadline = time.monotonic() + 0.05
        while not child.dead and time.monotonic() < deadline:
            if self.image.ready and self.image.has_news(0.01):
                self._on_image()
        if not child.dead:
            self._bury(child, seen)

    def _exited(self, pid: int, status: int) -> None:
        for child in self.alive:
            if child.pid == pid:
                child.status = status
                self._bury(child)
                return

    def _bury(self, child: Child, seen: float | None = None) -> None:
        """It is dead: read its last words, tell the loop, give back what was its."""
        seen = seen or time.time()
        child.dead = True
        self.alive.remove(child)
        self._read(child)
        self._eyes.forget(child.channel)
        if child.pidfd is not None:
            self._eyes.forget(child.pidfd)
        self._parent.on_dead(child, seen)
        self._take_census()

    # -- what they say --------------------------------------------------------------------------

    def tell(self, child: Child, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Send it; to the dead nothing is sent."""
        if child.dead:
            return
        try:
            child.channel.send(message, fds)
        except Closed:
            return  # its death is already on the way to us

    def _on_child(self, child: Child) -> None:
        if child.dead:
            return  # buried by an event of the same round; its channel is closed
        if not self._read(child):
            self._eyes.forget(child.channel)

    def _read(self, child: Child) -> bool:
        try:
            messages = child.channel.drain()
        except Closed:
            return False
        for message, _ in messages:
            for kind, body in message.items():
                self._parent.on_said(child, kind, body)
        return True

    # -- the end --------------------------------------------------------------------------------

    def reap(self) -> None:
        """Collect what was orphaned below this agent."""
        census.reap_strays(self.image.pid)

    def end(self) -> None:
        """Nobody stays: children, what they started, the image."""
        for child in list(self.alive):
            if child.pid is not None:
                child.kill()
                end_session(child.pid)
        self.image.end()

    def _take_census(self) -> None:
        census.write(Path(self._spec["runtime"]), self.alive, self.image.pid)
