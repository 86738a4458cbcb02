"""The agent's loop: one thread, one selector; gRPC threads only pass messages in and out.

Owns: the image (a child process), every rank and sidecar (children of the image), the shared
buffers and words, its socket and `processes.json`. Everything it owns ends with it: the image dies
with the agent (PDEATHSIG), ranks and sidecars with the image. Without a controller it starts one
again; when that does not help, or nobody comes, it ends.

Births and burials are in `family`, shared buffers and sidecars in `sharing`; here is the gang.
"""

from __future__ import annotations

import os
import queue
import socket
from pathlib import Path
from typing import Any

from penstock.base import log
from penstock.jobs.agent.beat import Beat
from penstock.jobs.agent.cgroup import OomWatch
from penstock.jobs.agent.children import Child, helper_of, rank_of
from penstock.jobs.agent.elsewhere import Elsewhere
from penstock.jobs.agent.eyes import Eyes
from penstock.jobs.agent.family import Family
from penstock.jobs.agent.master import Master
from penstock.jobs.agent.memory import budget
from penstock.jobs.agent.outbox import Outbox
from penstock.jobs.agent.pacing import Pacing
from penstock.jobs.agent.parts import Part, PartName, Parts
from penstock.jobs.agent.sessions import end_session
from penstock.jobs.agent.sharing import Sharing
from penstock.jobs.agent.watching import Watching
from penstock.jobs.neighbours import doors
from penstock.jobs.wire import Channel
from penstock.jobs.words import Words

_TICK = 0.25  # seconds between looks at the progress words

_log = log.logger("agent")


class Agent:
    """See the module. `spec` is what the controller wrote into the runtime folder."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.outbox = Outbox()
        self.commands: queue.Queue[dict[str, Any]] = queue.Queue()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.had: set[int] = set()  # ranks
        self.heard = 0  # number of the controller's newest command
        self.parts = Parts()  # of states, for neighbours to read
        self.neighbours = doors.Neighbours()
        self._ranks: dict[int, Child] = {}
        self._words: Words | None = None
        self._gang = 0
        self._killed = 0  # the gang that is to end
        self._shape = "gang"
        self._waiting_start: dict[str, Any] | None = None
        self._waiting_restarts: list[dict[str, Any]] = []
        self._eyes = Eyes()
        self._family = Family(spec, self._eyes, self)
        self._elsewhere = self._beyond() if spec.get("elsewhere") else None
        self._sharing = Sharing(
            spec, self._family, self.outbox, lambda: self._ranks, self._elsewhere
        )
        self._master = Master(spec, self._eyes.watch, self._eyes.forget)
        self._watching = Watching(self.outbox)
        self._oom = OomWatch()
        self._beat = Beat(self.outbox) if spec.get("elsewhere") else None
        self._pacing: Pacing | None = None  # of a gang whose ranks keep states in memory
        self._done = False

    def _beyond(self) -> Elsewhere:
        return Elsewhere(
            self.parts,
            lambda: budget(self.spec["memory_bytes"]) - self._sharing.taken(),
            lambda: self.neighbours,
            lambda *found: self.submit({"copied": found}),
        )

    # -- called by gRPC threads, and by those that copy -----------------------------------------

    def submit(self, message: dict[str, Any]) -> None:
        self.commands.put(message)
        try:
            os.write(self._wake_writer, b"x")
        except BlockingIOError:
            return  # the pipe is full: the loop will wake anyhow

    # -- the loop -------------------------------------------------------------------------------

    def run(self) -> None:
        self._eyes.watch(self._wake_reader, self._on_wake)
        self._family.start()
        if self._beat is None:  # it may die before it attaches
            self._master.attached(self.spec["controller_pid"])
        try:
            while not self._done:
                self._eyes.look(_TICK)
                self._housekeeping()
        finally:
            self._done = True
            self._family.end()

    def _on_wake(self) -> None:
        os.read(self._wake_reader, 4096)
        while True:
            try:
                message = self.commands.get_nowait()
            except queue.Empty:
                return
            self._master.heard()
            if self._is_heard_already(message.pop("n", None)):
                continue
            for kind, body in message.items():
                getattr(self, f"_do_{kind}")(body)

    def _is_heard_already(self, number: int | None) -> bool:
        """A command that was said again; None: one that may be."""
        if number is None:
            return False
        again, self.heard = number <= self.heard, max(number, self.heard)
        return again

    def _housekeeping(self) -> None:
        self._watching.look()
        if self._beat is not None:
            self._beat.look(self.heard)
        if self._pacing is not None:
            self._pacing.look(self._sharing.cost())
        if self._master.is_missed():
            _log.error("there is no controller; ending")
            self._done = True
        self._family.reap()

    # -- births and deaths ----------------------------------------------------------------------

    def on_ready(self, seconds: float, left_out: dict[str, str]) -> None:
        self.outbox.put("ready", {"image_seconds": seconds, "left_out": left_out})
        self._start_what_waits()

    def on_broken(self, words: str) -> None:
        self.outbox.put("broken", {"what": "the image cannot start", "log": words})

    def on_born(self, child: Child) -> None:
        late = child.gang != self._gang or child.gang == self._killed
        if child.role != "sidecar" and (late or self._ranks[child.rank].dead):
            child.kill()  # its gang was replaced or killed, or its rank died, before it was born
        if child.role == "rank" and all(rank.pid for rank in self._ranks.values()):
            pids = {str(rank.rank): rank.pid for rank in self._ranks.values()}
            self.outbox.put("started", {"gang": self._gang, "pids": pids})

    def on_dead(self, child: Child, seen: float) -> None:
        if child.role == "rank":
            self._bury_rank(child, seen)
        elif child.role == "sidecar" and not self._done:
            self._sharing.sidecar_died(child)
        else:
            child.close()  # a helper's rank sees the end of its socket, and asks for another

    def _bury_rank(self, child: Child, seen: float) -> None:
        body = {"gang": child.gang, "rank": child.rank, "pid": child.pid, "seen_at": seen}
        how = {
            **child.cause(),
            "told": child.told_end,
            "oom": self._oom.took(child.cause()["signal"]),
        }
        child.last_words["exited"] = {**body, **how}
        self.outbox.put("exited", child.last_words["exited"])
        if self._shape == "gang" and child.gang == self._gang and not child.told_end:
            for other in self._ranks.values():
                other.kill()  # a gang is replaced together; no collective survives a lost member
        for helper in filter(lambda each: each.is_of(child), self._family.alive):
            helper.kill()
        if child.pid is not None:
            end_session(child.pid)
        child.close()
        if child.gang == self._gang and all(rank.dead for rank in self._ranks.values()):
            self.outbox.put("gone", {"gang": self._gang})

    # -- what children say ----------------------------------------------------------------------

    def on_said(self, child: Child, kind: str, body: dict[str, Any]) -> None:
        getattr(self, f"_said_{kind}")(child, body)

    def _said_call(self, child: Child, body: dict[str, Any]) -> None:
        if body["kind"] == "allocate":
            self._sharing.allocate(child, body)
        elif body["kind"] == "lend":
            self._sharing.lend(child, body)
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
        self._sharing.handed(child, body)

    def _said_keep(self, child: Child, body: dict[str, Any]) -> None:
        self._sharing.kept(child, body)

    def _said_pace(self, child: Child, _: dict[str, Any]) -> None:
        if child.gang == self._gang and self._pacing is None and self._words is not None:
            self._pacing = Pacing(self._words)
            if self._elsewhere is not None:  # where ranks are on several agents, the fleet says
                self._elsewhere.pace()
                self._sharing.tell_kept()

    def _said_staged(self, _: Child, body: dict[str, Any]) -> None:
        self._sharing.released(body["rank"], body["slot"])

    def _said_done(self, child: Child, body: dict[str, Any]) -> None:
        self._sharing.done(child, body)

    def _fork_helper(self, rank: Child, body: dict[str, Any]) -> None:
        """A process of the rank's own, from the image; it dies with the rank."""
        helper, theirs = helper_of(rank, body["payload"])
        ranks_end, its_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ranks_end, its_end:
            self._family.fork(helper, [its_end.fileno()], theirs)
            reply = {"reply": {"id": body["id"], "payload": {}}}
            self._family.tell(rank, reply, (ranks_end.fileno(),))

    # -- what the controller wants --------------------------------------------------------------

    def _do_attached(self, body: dict[str, Any]) -> None:
        """A new controller: what it must know is put again, unanswered calls among it. One that was
        here already, by another session, knows all that."""
        if not self._master.attached(body["pid"]) or body.get("again"):
            return
        self.heard = 0
        waiting = self._waiting_start
        newest = int(waiting["gang"]) if waiting is not None else self._gang
        here = sorted(self._ranks) if waiting is None else waiting.get("ranks", [])
        world = self._words.ranks if self._words is not None else 0
        held = {"gang": newest, "ranks": here, "world_size": world}
        self.outbox.put("holds", {**held, "to": body["generation"]})
        ranks = self._ranks.values()
        for rank in ranks:
            for call in rank.calls.values():
                self.outbox.put("call", {"gang": rank.gang, "rank": rank.rank, **call})
            for kind, words in rank.last_words.items():
                self.outbox.put(kind, words)
        self._watching.tell_hang()
        self._sharing.tell_kept()
        if ranks and all(rank.dead for rank in ranks):
            self.outbox.put("gone", {"gang": self._gang})

    def _do_ack(self, seq: int) -> None:
        self.outbox.acknowledge(seq)

    def _do_beat(self, _: dict[str, Any]) -> None:
        """A controller elsewhere shows that it lives."""

    def _do_neighbours(self, body: dict[str, Any]) -> None:
        """Whom this node's processes may ask for shards, and the agent for states."""
        self.neighbours = doors.told(body)
        doors.write(Path(self.spec["runtime"]), self.neighbours)

    def _do_start(self, body: dict[str, Any]) -> None:
        self._waiting_start = body
        self._start_what_waits()

    def _start_what_waits(self) -> None:
        if not self._family.image.ready:
            return
        self._sharing.start_missing()
        restarts, self._waiting_restarts = self._waiting_restarts, []
        if self._waiting_start is not None:
            body, self._waiting_start = self._waiting_start, None
            self._start_gang(body)
        for each in restarts:
            self._do_restart(each)

    def _start_gang(self, body: dict[str, Any]) -> None:
        world = int(body["world_size"])
        here = [int(rank) for rank in body.get("ranks", range(world))]
        self._gang, self._shape = int(body["gang"]), body["shape"]
        for old in self._ranks.values():
            old.kill()
        if self._words is not None:
            self._words.close()
        if self._elsewhere is not None:
            same = self._words is None or self._words.ranks == world
            self._elsewhere.begin(body.get("memory", {}), same)
        self._words, self._pacing = Words.create(world), None
        self._sharing.new_gang(self._gang, world, here)
        self.had.update(here)
        self._ranks = {}
        rendezvous, listener = self._meeting(body)
        for rank in here:
            self._start_rank(rank, {**body, "ranks": here}, rendezvous, listener)
        if listener is not None:
            listener.close()
        seconds, others = body["hang_seconds"], len(here) < world
        self._watching = Watching(
            self.outbox, self._gang, self._words, self._ranks, seconds, others
        )

    def _meeting(self, body: dict[str, Any]) -> tuple[dict[str, Any], socket.socket | None]:
        """Where the gang's ranks find each other, and the socket there, where rank 0 is here. It
        listens already, so no rank comes too early and nobody else gets the port."""
        if "rendezvous" in body:
            return body["rendezvous"], None
        host = body.get("host", "127.0.0.1")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, 0), family=family, backlog=1024)
        rendezvous = {"host": host, "port": listener.getsockname()[1]}
        if "host" in body:
            self.outbox.put("listens", {"gang": self._gang, "rendezvous": rendezvous})
        return rendezvous, listener

    def _start_rank(
        self,
        rank: int,
        body: dict[str, Any],
        rendezvous: dict[str, Any],
        listener: socket.socket | None,
    ) -> None:
        assert self._words is not None
        child, theirs = rank_of(rank, body, rendezvous, self.spec)
        self._ranks[rank] = child
        fds = [self._words.fd] + ([listener.fileno()] if rank == 0 and listener else [])
        self._family.fork(child, fds, theirs)

    def _do_restart(self, body: dict[str, Any]) -> None:
        """Replace one member of a map, or add one: the others do not depend on it."""
        if not self._family.image.ready:
            self._waiting_restarts.append(body)
        elif "order" in body:
            self._add(body["rank"], body["order"])
        else:
            self._replace(body["rank"])

    def _replace(self, rank: int) -> None:
        old = self._ranks.get(rank)
        if old is None or not old.dead or self._words is None:
            return
        channel, theirs = Channel.pair()
        child = Child("rank", old.name, old.gang, old.rank, channel, old.request)
        self._ranks[old.rank] = child
        self._family.fork(child, [self._words.fd], theirs)

    def _add(self, rank: int, order: dict[str, Any]) -> None:
        if int(order["gang"]) == self._gang != self._killed and rank not in self._ranks:
            self.had.add(rank)
            self._start_rank(rank, order, {}, None)

    def _do_kill(self, body: dict[str, Any]) -> None:
        """Also of a gang that is still to be started, and of ranks that are still to be born."""
        self._killed = int(body["gang"])
        if self._waiting_start is not None and self._waiting_start["gang"] == self._killed:
            self._waiting_start = None
            self.outbox.put("gone", {"gang": self._killed})
        elif self._killed == self._gang:
            for child in self._ranks.values():
                child.kill()
            if all(rank.dead for rank in self._ranks.values()):
                self.outbox.put("gone", {"gang": self._gang})

    def _do_drain(self, body: dict[str, Any]) -> None:
        if self._words is not None and body["gang"] == self._gang:
            self._words.drain_at = self._agreed(body)

    def _do_save(self, body: dict[str, Any]) -> None:
        if self._words is not None and body["gang"] == self._gang:
            self._words.save_at = self._agreed(body)

    def _do_keep(self, body: dict[str, Any]) -> None:
        if self._words is not None and body["gang"] == self._gang:
            self._words.keep_at = int(body["at"])

    def _do_copy(self, body: dict[str, Any]) -> None:
        if self._elsewhere is not None:
            self._elsewhere.copy(body["parts"], body["from"])

    def _do_copied(self, found: tuple[PartName, Part | None, dict[str, Any]]) -> None:
        self._sharing.arrived(*found)

    def _do_stay(self, body: dict[str, Any]) -> None:
        self._sharing.stay([tuple(each) for each in body["states"]])

    def _agreed(self, body: dict[str, Any]) -> int:
        """The step after which all ranks do it: where some are elsewhere, it is given."""
        assert self._words is not None
        return int(body.get("at", max(self._words.steps()) + body["margin"]))

    def _do_reply(self, body: dict[str, Any]) -> None:
        child = self._ranks.get(body["rank"])
        if child is not None and child.gang == body["gang"]:
            child.calls.pop(body["id"], None)
            answer = {key: body[key] for key in ("id", "payload", "error") if key in body}
            self._family.tell(child, {"reply": answer})

    def _do_preempted(self, _: dict[str, Any]) -> None:
        self._sharing.rescue()
        self.outbox.put("preempted", {"gang": self._gang})

    def _do_shutdown(self, _: dict[str, Any]) -> None:
        self._done = True
