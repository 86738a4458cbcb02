"""The agent's loop: one thread, one selector; gRPC threads only pass messages in and out.

Owns: the image (a child process), every rank and sidecar (children of the image), the shared
buffers and words, its socket and `processes.json`. Everything it owns ends with it: the image dies
with the agent (PDEATHSIG), ranks and sidecars with the image. Without a controller it starts one
again; when that does not help, or nobody comes, it ends.
"""

from __future__ import annotations

import os
import queue
import selectors
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.base import log
from penstock.base.errors import DiskFull
from penstock.jobs.agent import census
from penstock.jobs.agent.children import Child, helper_of, rank_of, sidecar_of
from penstock.jobs.agent.master import Master
from penstock.jobs.agent.memory import budget, make_buffers
from penstock.jobs.agent.outbox import Outbox
from penstock.jobs.agent.sessions import end_session
from penstock.jobs.agent.warm import WarmImage
from penstock.jobs.agent.watching import Watching
from penstock.jobs.wire import Channel, Closed
from penstock.jobs.words import Words

_TICK = 0.25  # seconds between looks at the progress words

_log = log.logger("agent")


class Agent:
    """See the module. `spec` is what the controller wrote into the runtime folder."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.runtime = Path(spec["runtime"])
        self.outbox = Outbox()
        self.commands: queue.Queue[dict[str, Any]] = queue.Queue()
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._ranks: dict[int, Child] = {}
        self._sidecars: dict[str, Child] = {}
        self._leaving: list[Child] = []  # dead ranks whose handed buffers a sidecar still reads
        self._unborn: dict[str, Child] = {}
        self._alive: list[Child] = []
        self._forks = 0
        self._words: Words | None = None
        self._gang = 0
        self._shape = "gang"
        self._image: WarmImage
        self._waiting_start: dict[str, Any] | None = None
        self._master = Master(spec, self._watch, self._forget)
        self._watching = Watching(self.outbox)
        self._in_memory = 0
        self._done = False

    # -- called by gRPC threads ---------------------------------------------------------------

    def submit(self, message: dict[str, Any]) -> None:
        self.commands.put(message)
        try:
            os.write(self._wake_writer, b"x")
        except BlockingIOError:
            return  # the pipe is full: the loop will wake anyhow

    # -- the loop -------------------------------------------------------------------------------

    def run(self) -> None:
        self._watch(self._wake_reader, self._on_wake)
        self._start_image()
        census.write(self.runtime, self._alive, self._image.pid)
        self._master.attached(self.spec["controller_pid"])  # it may die before it attaches
        try:
            while not self._done:
                for key, _ in self._selector.select(timeout=_TICK):
                    key.data()
                self._housekeeping()
        finally:
            self._end_everything()

    def _watch(self, fd: Any, handler: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, handler)

    def _forget(self, fd: Any) -> None:
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError):
            return

    def _on_wake(self) -> None:
        os.read(self._wake_reader, 4096)
        while True:
            try:
                message = self.commands.get_nowait()
            except queue.Empty:
                return
            for kind, body in message.items():
                getattr(self, f"_do_{kind}")(body)

    def _housekeeping(self) -> None:
        self._watching.look()
        if self._master.is_missed():
            _log.error("there is no controller; ending")
            self._done = True
        census.reap_strays(self._image.pid)

    # -- the image ------------------------------------------------------------------------------

    def _start_image(self) -> None:
        self._image = WarmImage(self.spec)
        self._watch(self._image.channel, self._on_image)

    def _on_image(self) -> None:
        image = self._image
        try:
            messages = image.channel.drain()
        except Closed:
            self._image_died(image)
            return
        for message, _ in messages:
            if "ready" in message:
                image.ready = True
                self.outbox.put("ready", {"image_seconds": message["ready"]})
                self._start_what_waits()
            elif "forked" in message:
                self._born(self._unborn.pop(message["key"]), message["forked"])
            elif "exited" in message:
                self._exited(message["exited"], message["status"])

    def _image_died(self, image: WarmImage) -> None:
        """Its children die with it. One that could not even start would not the next time."""
        self._forget(image.channel)
        could_start, image.ready = image.ready, False  # before the burials, which may fork anew
        _log.error("the image died", extra=log.facts(code=image.bury(), could_start=could_start))
        self._unborn.clear()
        for child in list(self._alive):
            self._bury(child)
        if could_start:
            self._start_image()
        else:
            words = {"what": "the image cannot start", "log": image.last_words()}
            self.outbox.put("broken", words)

    # -- children -------------------------------------------------------------------------------

    def _fork(self, child: Child, fds: list[int], theirs: socket.socket) -> None:
        self._forks += 1
        key = str(self._forks)
        child.request = {**child.request, "key": key}
        self._unborn[key] = child
        self._alive.append(child)
        try:
            self._image.channel.send({"fork": child.request}, (theirs.fileno(), *fds))
        except Closed:
            _log.error("the image is gone", extra=log.facts(child=key))  # its own end tells more
        theirs.close()
        self._watch(child.channel, lambda: self._on_child(child))

    def _born(self, child: Child, pid: int) -> None:
        child.born(pid)
        if child.role != "sidecar" and (child.gang != self._gang or self._ranks[child.rank].dead):
            child.kill()  # its gang was replaced, or its rank died, before it was born
        if child.pidfd is not None:
            self._watch(child.pidfd, lambda: self._on_pidfd(child))
        census.write(self.runtime, self._alive, self._image.pid)
        if child.role == "rank" and all(rank.pid for rank in self._ranks.values()):
            pids = {str(rank.rank): rank.pid for rank in self._ranks.values()}
            self.outbox.put("started", {"gang": self._gang, "pids": pids})

    def _on_pidfd(self, child: Child) -> None:
        """The kernel says it is dead; its parent, the image, will say how: wait a little for it."""
        seen = time.time()
        if child.dead:
            return
        if child.pidfd is not None:
            self._forget(child.pidfd)
        deadline = time.monotonic() + 0.05
        while not child.dead and time.monotonic() < deadline:
            if self._image.ready and self._image.has_news(0.01):
                self._on_image()
        if not child.dead:
            self._bury(child, seen)

    def _exited(self, pid: int, status: int) -> None:
        for child in self._alive:
            if child.pid == pid:
                child.status = status
                self._bury(child)
                return

    def _bury(self, child: Child, seen: float | None = None) -> None:
        """It is dead: read its last words, tell the controller, clean up after it."""
        seen = seen or time.time()
        child.dead = True
        self._alive.remove(child)
        self._read_child(child)
        self._forget(child.channel)
        if child.pidfd is not None:
            self._forget(child.pidfd)
        if child.role == "sidecar":
            self._bury_sidecar(child)
        elif child.role == "data":
            child.close()  # its rank sees the end of its socket, and asks for another
        else:
            self._bury_rank(child, seen)
        census.write(self.runtime, self._alive, self._image.pid)

    def _bury_rank(self, child: Child, seen: float) -> None:
        body = {"gang": child.gang, "rank": child.rank, "pid": child.pid, "seen_at": seen}
        child.last_words["exited"] = {**body, **child.cause(), "told": child.told_end}
        self.outbox.put("exited", child.last_words["exited"])
        if self._shape == "gang" and child.gang == self._gang and not child.told_end:
            for other in self._ranks.values():
                other.kill()  # a gang is replaced together; no collective survives a lost member
        for helper in filter(lambda each: each.is_of(child), self._alive):
            helper.kill()
        if child.handed:
            self._leaving.append(child)
        if child.pid is not None:
            end_session(child.pid)
        child.close()
        if child.gang == self._gang and all(rank.dead for rank in self._ranks.values()):
            self.outbox.put("gone", {"gang": self._gang})

    def _bury_sidecar(self, child: Child) -> None:
        child.close()
        self._sidecars.pop(child.name, None)
        if self._done:
            return
        _log.warning("a sidecar died; starting it again", extra=log.facts(name=child.name))
        if self._image.ready:
            self._start_sidecar(child.name)

    def _start_sidecar(self, name: str) -> None:
        child, theirs = sidecar_of(name, self.spec)
        self._sidecars[name] = child
        self._fork(child, [], theirs)
        for rank in [*self._leaving, *self._ranks.values()]:  # what its predecessor did not finish
            self._share(child, rank)
            for message in rank.handed.values():
                self._tell(child, message)

    def _tell(self, child: Child, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        if child.dead:
            return
        try:
            child.channel.send(message, fds)
        except Closed:
            return  # its death is already on the way to us

    # -- what children say ----------------------------------------------------------------------

    def _on_child(self, child: Child) -> None:
        if child.dead:
            return  # buried by an event of the same round; its channel is closed
        if not self._read_child(child):
            self._forget(child.channel)

    def _read_child(self, child: Child) -> bool:
        try:
            messages = child.channel.drain()
        except Closed:
            return False
        for message, _ in messages:
            for kind, body in message.items():
                getattr(self, f"_said_{kind}")(child, body)
        return True

    def _said_call(self, child: Child, body: dict[str, Any]) -> None:
        if body["kind"] == "allocate":
            self._allocate(child, body)
        elif body["kind"] == "fork":
            self._fork_helper(child, body)
        else:
            child.calls[body["id"]] = body
            self.outbox.put("call", {"gang": child.gang, "rank": child.rank, **body})

    def _said_tell(self, child: Child, body: dict[str, Any]) -> None:
        message = {"gang": child.gang, "rank": child.rank, **body}
        if body["kind"] in ("finished", "drained", "raised"):
            child.told_end = True
            child.last_words["tell"] = message
        self.outbox.put("tell", message)

    def _said_hand(self, child: Child, body: dict[str, Any]) -> None:
        """A rank filled a shared buffer for a sidecar."""
        message = {"hand": {"gang": child.gang, "rank": child.rank, **body}}
        child.handed[body["slot"]] = message
        self.outbox.put("handed", {"gang": child.gang, "rank": child.rank, "step": body["step"]})
        if (sidecar := self._sidecars.get(body["to"])) is not None:
            self._tell(sidecar, message)

    def _said_done(self, child: Child, body: dict[str, Any]) -> None:
        """A sidecar is through with a buffer; its result goes to the controller."""
        for owner in [*self._leaving, *self._ranks.values()]:
            if (owner.gang, owner.rank) == (body["gang"], body["rank"]):
                owner.handed.pop(body["slot"], None)
                self._tell(owner, {"free": body["slot"]})
                if owner.dead:
                    owner.drop_buffers()
        self._leaving = [gone for gone in self._leaving if gone.handed]
        self.outbox.put("sidecar", {"name": child.name, **body})

    def _fork_helper(self, rank: Child, body: dict[str, Any]) -> None:
        """A process of the rank's own, from the image; it dies with the rank."""
        helper, theirs = helper_of(rank, body["payload"])
        ranks_end, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ranks_end, its_end:
            self._fork(helper, [its_end.fileno()], theirs)
            self._tell(rank, {"reply": {"id": body["id"], "payload": {}}}, (ranks_end.fileno(),))

    def _allocate(self, child: Child, body: dict[str, Any]) -> None:
        """Shared buffers for one rank: in memory while the budget lasts, else on disk."""
        size, count = int(body["payload"]["bytes"]), int(body["payload"]["count"])
        room = budget(self.spec["memory_bytes"])
        in_memory = self._in_memory + size * count <= room
        child.drop_buffers()
        folder = None if in_memory else Path(self.spec["scratch"])
        try:
            child.buffers = make_buffers(f"{self._gang}-{child.rank}", size, count, folder)
        except DiskFull as error:
            self._tell(child, {"reply": {"id": body["id"], "error": error.as_dict()}})
            return
        self._in_memory += size * count if in_memory else 0
        if not in_memory:
            tier = {"kind": "memory-degraded", "payload": {"wanted": size * count, "room": room}}
            self.outbox.put("tell", {"gang": child.gang, "rank": child.rank, **tier})
        for sidecar in self._sidecars.values():
            self._share(sidecar, child)
        answer = {"slots": list(child.buffers), "bytes": size, "in_memory": in_memory}
        reply = {"reply": {"id": body["id"], "payload": answer}}
        self._tell(child, reply, tuple(child.buffers.values()))

    def _share(self, sidecar: Child, rank: Child) -> None:
        if rank.buffers:
            who = {"gang": rank.gang, "rank": rank.rank, "slots": list(rank.buffers)}
            self._tell(sidecar, {"buffers": who}, tuple(rank.buffers.values()))

    # -- what the controller wants --------------------------------------------------------------

    def _do_attached(self, body: dict[str, Any]) -> None:
        """A new controller: what it must know is put again, unanswered calls among it."""
        if not self._master.attached(body["pid"]):
            return
        waiting = self._waiting_start
        newest = int(waiting["gang"]) if waiting is not None else self._gang
        self.outbox.put("holds", {"gang": newest, "to": body["generation"]})
        ranks = self._ranks.values()
        for rank in ranks:
            for call in rank.calls.values():
                self.outbox.put("call", {"gang": rank.gang, "rank": rank.rank, **call})
            for kind, words in rank.last_words.items():
                self.outbox.put(kind, words)
        self._watching.tell_hang()
        if ranks and all(rank.dead for rank in ranks):
            self.outbox.put("gone", {"gang": self._gang})

    def _do_ack(self, seq: int) -> None:
        self.outbox.acknowledge(seq)

    def _do_start(self, body: dict[str, Any]) -> None:
        self._waiting_start = body
        self._start_what_waits()

    def _start_what_waits(self) -> None:
        if not self._image.ready:
            return
        for name in self.spec["sidecars"]:
            if name not in self._sidecars:
                self._start_sidecar(name)
        if self._waiting_start is None:
            return
        body, self._waiting_start = self._waiting_start, None
        self._start_gang(body)

    def _start_gang(self, body: dict[str, Any]) -> None:
        world = int(body["world_size"])
        self._gang, self._shape = int(body["gang"]), body["shape"]
        for old in self._ranks.values():
            old.kill()
        if self._words is not None:
            self._words.close()
        self._words, self._in_memory = Words.create(world), 0
        self._ranks = {}
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        rendezvous = {"host": "127.0.0.1", "port": listener.getsockname()[1]}
        for rank in range(world):
            self._start_rank(rank, body, rendezvous, listener)
        listener.close()
        seconds = body["hang_seconds"]
        self._watching = Watching(self.outbox, self._gang, self._words, self._ranks, seconds)

    def _start_rank(
        self, rank: int, body: dict[str, Any], rendezvous: dict[str, Any], listener: socket.socket
    ) -> None:
        assert self._words is not None
        child, theirs = rank_of(rank, body, rendezvous, Path(self.spec["logs"]))
        self._ranks[rank] = child
        fds = [self._words.fd] + ([listener.fileno()] if rank == 0 else [])
        self._fork(child, fds, theirs)

    def _do_restart(self, body: dict[str, Any]) -> None:
        """Replace one member of a map: the others do not depend on it."""
        old = self._ranks[body["rank"]]
        if not old.dead or not self._image.ready or self._words is None:
            return
        channel, theirs = Channel.pair()
        child = Child("rank", old.name, old.gang, old.rank, channel, old.request)
        self._ranks[old.rank] = child
        self._fork(child, [self._words.fd], theirs)

    def _do_kill(self, body: dict[str, Any]) -> None:
        if body["gang"] == self._gang:
            for child in self._ranks.values():
                child.kill()

    def _do_drain(self, body: dict[str, Any]) -> None:
        if self._words is not None and body["gang"] == self._gang:
            self._words.drain_at = max(self._words.steps()) + body["margin"]

    def _do_save(self, body: dict[str, Any]) -> None:
        if self._words is not None and body["gang"] == self._gang:
            self._words.save_at = max(self._words.steps()) + body["margin"]

    def _do_reply(self, body: dict[str, Any]) -> None:
        child = self._ranks.get(body["rank"])
        if child is not None and child.gang == body["gang"]:
            child.calls.pop(body["id"], None)
            answer = {key: body[key] for key in ("id", "payload", "error") if key in body}
            self._tell(child, {"reply": answer})

    def _do_shutdown(self, _: dict[str, Any]) -> None:
        self._done = True

    # -- the end --------------------------------------------------------------------------------

    def _end_everything(self) -> None:
        self._done = True
        for child in list(self._alive):
            if child.pid is not None:
                child.kill()
                end_session(child.pid)
        self._image.end()
