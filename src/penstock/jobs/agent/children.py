"""One child of the image: a rank or a sidecar, as its agent sees it."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.base import process
from penstock.jobs.agent.sessions import end_session
from penstock.jobs.environment import across
from penstock.jobs.neighbours import VARIABLE, doors
from penstock.jobs.wire import Channel


def to_fork(
    name: str, log: Path, entry: str, payload: dict[str, Any], environment: dict[str, str]
) -> dict[str, Any]:
    """What the image is asked to become; see `penstock.jobs.image`."""
    return {
        "name": name,
        "log": str(log),
        "entry": entry,
        "payload": payload,
        "env": environment,
    }


def sidecar_of(name: str, spec: dict[str, Any]) -> tuple[Child, socket.socket]:
    """A sidecar that the agent's spec names, and its end of the channel."""
    wanted = spec["sidecars"][name]
    channel, theirs = Channel.pair()
    log = Path(spec["logs"]) / f"{name}.log"
    payload = {**wanted["payload"], "run_id": spec["run_id"], "elsewhere": "elsewhere" in spec}
    request = to_fork(f"sidecar-{name}", log, wanted["entry"], payload, {})
    return Child("sidecar", name, 0, -1, channel, request), theirs


def rank_of(
    rank: int, body: dict[str, Any], rendezvous: dict[str, Any], spec: dict[str, Any]
) -> tuple[Child, socket.socket]:
    """A rank of the gang that `body` asks for, and its end of the channel."""
    channel, theirs = Channel.pair()
    logs = Path(spec["logs"])
    shared = {key: body[key] for key in ("world_size", "gang", "generation")}
    name = f"rank-{rank}"
    own = {"rank": rank, "rendezvous": rendezvous, "stacks": str(logs / f"{name}.stacks")}
    own["local"] = [body["ranks"].index(rank), len(body["ranks"])]
    payload = {**body["payload"], **spec.get("node", {}), **shared, **own}
    environment = {**body["env"], "PENSTOCK_RANK": str(rank)}
    if spec.get("neighbours") and "elsewhere" in spec:
        environment[VARIABLE] = str(Path(spec["runtime"]) / doors.FILE)
    if len(body["ranks"]) < body["world_size"]:
        from_image = {**spec["image_env"], **environment}  # which is for ranks of one machine
        environment = across(from_image, spec["elsewhere"]["interface"])
    request = to_fork(name, logs / f"{name}.log", body["entry"], payload, environment)
    return Child("rank", name, int(body["gang"]), rank, channel, request), theirs


def helper_of(rank: Child, wanted: dict[str, Any]) -> tuple[Child, socket.socket]:
    """A process of a rank's own, such as a data worker, and its end of the agent's channel.

    It writes into the rank's log and has the rank's environment.
    """
    channel, theirs = Channel.pair()
    name = f"rank-{rank.rank}-{wanted['name']}"
    log, environment = Path(rank.request["log"]), rank.request["env"]
    request = to_fork(name, log, wanted["entry"], wanted["payload"], environment)
    return Child("data", name, rank.gang, rank.rank, channel, request), theirs


@dataclass
class Child:
    """role "rank" | "sidecar" | "data"; `pid` is None until the image has forked it.

    calls   asked of the controller and not answered yet: id -> message
    last_words  what a new controller must hear again: how the rank took its leave, how it ended
    """

    role: str
    name: str
    gang: int
    rank: int
    channel: Channel
    request: dict[str, Any]
    pid: int | None = None
    pidfd: int | None = None
    started: int | None = None
    status: int | None = None
    told_end: bool = False
    dead: bool = False
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    last_words: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def stacks(self) -> Path:
        """Of a rank: the file into which it writes its stacks."""
        return Path(self.request["payload"]["stacks"])

    @property
    def folders(self) -> list[str]:
        """Of a rank: those of its project's sources."""
        found: list[str] | None = self.request["payload"].get("paths")
        return found or []

    def is_of(self, rank: Child) -> bool:
        """Whether it is a helper of this rank."""
        return self.role == "data" and (self.gang, self.rank) == (rank.gang, rank.rank)

    def born(self, pid: int) -> None:
        self.pid = pid
        self.started = process.start_time(pid)
        try:
            self.pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self.pidfd = None

    def kill(self) -> None:
        if self.pid is not None and not self.dead:
            process.kill_quietly(self.pid, signal.SIGKILL)

    def cause(self) -> dict[str, Any]:
        """How it ended: a signal's name, an exit code, or nothing known."""
        if self.status is None:
            return {"signal": None, "code": None}
        if os.WIFSIGNALED(self.status):
            return {"signal": signal.Signals(os.WTERMSIG(self.status)).name, "code": None}
        return {"signal": None, "code": os.waitstatus_to_exitcode(self.status)}

    def close(self) -> None:
        """Give back descriptors. Shared buffers are the seat's."""
        if self.role == "data" and self.pid is not None:
            end_session(self.pid)  # what the user's function may have started
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None
        self.channel.close()
