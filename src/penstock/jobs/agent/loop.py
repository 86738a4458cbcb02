"""The agent's loop: one thread, one selector; gRPC threads only pass messages in and out.

Owns: the image (a child process), every rank and sidecar (children of the image), the shared
buffers and words, its socket and `processes.json`. Everything it owns ends with it: the image dies
with the agent (PDEATHSIG), ranks and sidecars with the image. Without a controller it starts one
again; when that does not help, or nobody comes, it ends.
"""

from __future__ import annotations

import json
import os
import queue
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.base import log, process
from penstock.jobs.agent.children import Child
from penstock.jobs.agent.memory import budget, disk_buffer, memory_buffer
from penstock.jobs.agent.outbox import Outbox
from penstock.jobs.agent.sessions import end_session
from penstock.jobs.wire import Channel, Closed
from penstock.jobs.words import Words

_TICK = 0.25  # seconds between looks at the progress words
_LONELY = 60.0  # seconds without any controller after which an agent ends
_RESTARTS = 5  # controllers started again within _LONELY seconds before giving up

_log = log.logger("agent")


class Agent:
    """See the module. `spec` is what the controller wrote into the runtime folder."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.runtime = Path(spec["runtime"])
        self.outbox = Outbox()
        self.commands: queue.Queue[dict[str, Any]] = queue.Queue()
        self.generation = 0
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
        self._image: subprocess.Popen[bytes] | None = None
        self._image_channel: Channel | None = None
        self._image_ready = False
        self._waiting_start: dict[str, Any] | None = None
        self._controller_fd: int | None = None
        self._restarted: list[float] = []
        self._lonely_since: float | None = time.monotonic()
        self._shown: list[int] = []
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
        steps = self._words.steps() if self._words else []
        if steps and steps != self._shown:
            self._shown = steps
            self.outbox.replace("progress", {"gang": self._gang, "steps": steps})
        if self._lonely_since is not None and time.monotonic() - self._lonely_since > _LONELY:
            _log.error("no controller came; ending")
            self._done = True
        _reap_strays(self._image.pid if self._image else 0)

    # -- the image ------------------------------------------------------------------------------

    def _start_image(self) -> None:
        self._image_channel, theirs = Channel.pair()
        command = [sys.executable, "-m", "penstock.jobs.image"]
        command += [str(theirs.fileno()), str(os.getpid()), *self.spec["preload"]]
        with (Path(self.spec["logs"]) / "image.log").open("ab") as out:
            self._image = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.spec["cwd"],
                env={**os.environ, **self.spec["image_env"]},
                start_new_session=True,
            )
        theirs.close()
        self._image_ready = False
        self._watch(self._image_channel, self._on_image)

    def _on_image(self) -> None:
        channel = self._image_channel
        assert channel is not None
        try:
            messages = channel.drain()
        except Closed:
            self._image_died()
            return
        for message, _ in messages:
            if "ready" in message:
                self._image_ready = True
                self.outbox.put("ready", {"image_seconds": message["ready"]})
                self._start_what_waits()
            elif "forked" in message:
                self._born(self._unborn.pop(message["key"]), message["forked"])
            elif "exited" in message:
                self._exited(message["exited"], message["status"])

    def _image_died(self) -> None:
        assert self._image_channel is not None and self._image is not None
        self._forget(self._image_channel)
        self._image_channel.close()
        code = self._image.wait()
        _log.error("the image died", extra=log.facts(code=code, ready=self._image_ready))
        broken_from_the_start = not self._image_ready
        self._unborn.clear()
        for child in list(self._alive):
            self._bury(child)
        if broken_from_the_start:
            tail = (Path(self.spec["logs"]) / "image.log").read_text(errors="replace")[-2000:]
            self.outbox.put("broken", {"what": "the image cannot start", "log": tail})
            return
        self._start_image()

    # -- children -------------------------------------------------------------------------------

    def _fork(self, child: Child, fds: list[int], theirs: socket.socket) -> None:
        assert self._image_channel is not None
        self._forks += 1
        key = str(self._forks)
        child.request = {**child.request, "key": key}
        self._unborn[key] = child
        self._alive.append(child)
        try:
            self._image_channel.send({"fork": child.request}, (theirs.fileno(), *fds))
        except Closed:
            _log.error("the image is gone", extra=log.facts(child=key))  # its own end tells more
        theirs.close()
        self._watch(child.channel, lambda: self._on_child(child))

    def _born(self, child: Child, pid: int) -> None:
        child.born(pid)
        if child.role == "rank" and child.gang != self._gang:
            child.kill()  # its gang was replaced before it was born
        if child.pidfd is not None:
            self._watch(child.pidfd, lambda: self._on_pidfd(child))
        self._write_processes()
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
        while not child.dead and time.monotonic() < deadline and self._image_channel is not None:
            self._on_image_soon(0.01)
        if not child.dead:
            self._bury(child, seen)

    def _on_image_soon(self, timeout: float) -> None:
        with selectors.DefaultSelector() as only:
            assert self._image_channel is not None
            only.register(self._image_channel, selectors.EVENT_READ)
            if only.select(timeout):
                self._on_image()

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
        else:
            self._bury_rank(child, seen)
        self._write_processes()

    def _bury_rank(self, child: Child, seen: float) -> None:
        body = {"gang": child.gang, "rank": child.rank, "pid": child.pid, "seen_at": seen}
        child.last_words["exited"] = {**body, **child.cause(), "told": child.told_end}
        self.outbox.put("exited", child.last_words["exited"])
        if self._shape == "gang" and child.gang == self._gang and not child.told_end:
            for other in self._ranks.values():
                other.kill()  # a gang is replaced together; no collective survives a lost member
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
        if self._image_ready:
            self._start_sidecar(child.name)

    def _start_sidecar(self, name: str) -> None:
        wanted = self.spec["sidecars"][name]
        channel, theirs = Channel.pair()
        request = self._request(
            f"sidecar-{name}", f"{name}.log", wanted["entry"], wanted["payload"]
        )
        child = Child("sidecar", name, 0, -1, channel, request)
        self._sidecars[name] = child
        self._fork(child, [], theirs)
        for rank in [*self._leaving, *self._ranks.values()]:  # what its predecessor did not finish
            self._share(child, rank)
            for message in rank.handed.values():
                self._tell(child, message)

    def _request(
        self, name: str, log_name: str, entry: str, payload: dict[str, Any], **env: str
    ) -> dict[str, Any]:
        return {
            "name": name,
            "log": str(Path(self.spec["logs"]) / log_name),
            "entry": entry,
            "payload": payload,
            "env": env,
        }

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

    def _allocate(self, child: Child, body: dict[str, Any]) -> None:
        """Shared buffers for one rank: in memory while the budget lasts, else on disk."""
        size, count = int(body["payload"]["bytes"]), int(body["payload"]["count"])
        room = budget(self.spec["memory_bytes"])
        in_memory = self._in_memory + size * count <= room
        child.buffers.clear()
        try:
            for number in range(count):
                name = f"{self._gang}-{child.rank}-{number}-{size}"
                child.buffers[name] = (
                    memory_buffer(name, size)
                    if in_memory
                    else disk_buffer(Path(self.spec["scratch"]), name, size)
                )
        except OSError as error:
            failure = {"code": "disk-full", "what": f"no room for a checkpoint: {error}"}
            failure["fix"] = "Free memory or disk space; the run goes on from its last checkpoint."
            self._tell(child, {"reply": {"id": body["id"], "error": failure}})
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
        self._lonely_since = None
        self.generation = body["generation"]
        if self._controller_fd is not None:
            self._forget(self._controller_fd)
            os.close(self._controller_fd)
            self._controller_fd = None
        try:
            self._controller_fd = os.pidfd_open(body["pid"])
        except ProcessLookupError:
            self._controller_died()
            return
        self._watch(self._controller_fd, self._controller_died)
        self._tell_newcomer()

    def _tell_newcomer(self) -> None:
        """What a new controller must know; calls that nobody answered are put again."""
        ranks = self._ranks.values()
        alive = [rank.rank for rank in ranks if not rank.dead]
        for rank in ranks:
            for body in rank.calls.values():
                self.outbox.put("call", {"gang": rank.gang, "rank": rank.rank, **body})
            for kind, body in rank.last_words.items():
                self.outbox.put(kind, body)
        if ranks and not alive:
            self.outbox.put("gone", {"gang": self._gang})

    def _controller_died(self) -> None:
        if self._controller_fd is not None:
            self._forget(self._controller_fd)
            os.close(self._controller_fd)
            self._controller_fd = None
        now = time.monotonic()
        self._lonely_since = now
        self._restarted = [at for at in self._restarted if now - at < _LONELY] + [now]
        if self.spec["controller"] is None or len(self._restarted) > _RESTARTS:
            _log.error("the controller is gone for good; ending")
            self._done = True
            return
        _log.warning("the controller died; starting it again")
        with (Path(self.spec["logs"]) / "controller.log").open("ab") as out:
            subprocess.Popen(
                self.spec["controller"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.spec["cwd"],
                start_new_session=True,
            )

    def _do_ack(self, seq: int) -> None:
        self.outbox.acknowledge(seq)

    def _do_start(self, body: dict[str, Any]) -> None:
        self._waiting_start = body
        self._start_what_waits()

    def _start_what_waits(self) -> None:
        if not self._image_ready:
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
        self._words, self._shown, self._in_memory = Words.create(world), [], 0
        self._ranks = {}
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        rendezvous = {"host": "127.0.0.1", "port": listener.getsockname()[1]}
        for rank in range(world):
            self._start_rank(rank, body, rendezvous, listener)
        listener.close()

    def _start_rank(
        self, rank: int, body: dict[str, Any], rendezvous: dict[str, Any], listener: socket.socket
    ) -> None:
        assert self._words is not None
        channel, theirs = Channel.pair()
        payload = {
            **body["payload"],
            "rank": rank,
            "world_size": body["world_size"],
            "gang": self._gang,
            "generation": body["generation"],
            "rendezvous": rendezvous,
        }
        request = self._request(f"rank-{rank}", f"rank-{rank}.log", body["entry"], payload)
        request["env"] = {**body["env"], "PENSTOCK_RANK": str(rank)}
        child = Child("rank", f"rank-{rank}", self._gang, rank, channel, request)
        self._ranks[rank] = child
        fds = [self._words.fd] + ([listener.fileno()] if rank == 0 else [])
        self._fork(child, fds, theirs)

    def _do_restart(self, body: dict[str, Any]) -> None:
        """Replace one member of a map: the others do not depend on it."""
        old = self._ranks[body["rank"]]
        if not old.dead or not self._image_ready or self._words is None:
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
            for child in self._ranks.values():
                self._tell(child, {"drain": {}})

    def _do_save(self, body: dict[str, Any]) -> None:
        if self._words is not None and body["gang"] == self._gang:
            self._words.save_at = max(self._words.steps()) + body["margin"]

    def _do_reply(self, body: dict[str, Any]) -> None:
        child = self._ranks.get(body["rank"])
        if child is not None and child.gang == body["gang"]:
            self._tell(
                child, {"reply": {k: v for k, v in body.items() if k not in ("gang", "rank")}}
            )

    def _do_shutdown(self, _: dict[str, Any]) -> None:
        self._done = True

    # -- the end --------------------------------------------------------------------------------

    def _write_processes(self) -> None:
        """Who runs, for `penstock runs pids` and for whoever cleans up after this agent."""
        rows = [
            {"role": c.role, "name": c.name, "rank": c.rank, "pid": c.pid, "started": c.started}
            for c in self._alive
            if c.pid is not None
        ]
        owners = {"agent": os.getpid()} | ({"image": self._image.pid} if self._image else {})
        for role, pid in owners.items():
            row = {"role": role, "name": role, "rank": None, "pid": pid}
            rows.append({**row, "started": process.start_time(pid)})
        target = self.runtime / "processes.json"
        draft = target.with_suffix(".new")
        draft.write_text(json.dumps(rows))
        draft.replace(target)

    def _end_everything(self) -> None:
        self._done = True
        for child in list(self._alive):
            if child.pid is not None:
                child.kill()
                end_session(child.pid)
        if self._image is not None and self._image.poll() is None:
            process.kill_quietly(self._image.pid, signal.SIGKILL)
            self._image.wait()


def _reap_strays(image: int) -> None:
    """Collect what was orphaned below us; the image keeps its own account."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid == image:
            return
        os.waitpid(found.si_pid, 0)
