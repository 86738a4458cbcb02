"""A rank's line to its agent: questions to the controller, reports, shared buffers, the words.

No thread: messages are read when the rank waits for an answer or looks for one. The agent's death
needs no watching, because the kernel ends the rank with it.
"""

from __future__ import annotations

import mmap
import os
import socket
from dataclasses import dataclass
from typing import Any, Protocol

from penstock.base.errors import PenstockError, Unavailable, from_dict
from penstock.jobs.pulse import Pulse
from penstock.jobs.wire import Channel, Closed
from penstock.jobs.words import Words


@dataclass
class Buffer:
    """A piece of shared memory that a rank fills, and a sidecar or a later rank reads.

    free    it may be filled
    handed  a sidecar has it and is not done
    keeps   what is filled and sealed may stay in it
    """

    slot: str
    view: memoryview
    free: bool = True
    handed: bool = False
    keeps: bool = False


@dataclass
class Lent:
    """A filled slot of one seat, and the seal that it was kept with."""

    memory: mmap.mmap
    seal: dict[str, Any]


class Link(Protocol):
    """What a rank may do. `AgentLink` crosses processes; a room may give another for workers=0."""

    run_id: str
    rank: int
    world_size: int
    local: tuple[int, int]  # (index, how many) of the ranks on this machine
    attempt: int
    generation: int
    pulse: Pulse  # signs of life, for the agent to see
    beside: bool  # whether `hand` gives work to a process beside this one; else it does it

    def call(self, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Ask the controller and wait. Raises the error that it answers with."""
        ...

    def tell(self, kind: str, payload: dict[str, Any]) -> None: ...
    def buffers(self, size: int, least: int, count: int) -> list[Buffer]:
        """Shared buffers of `size` bytes each, in memory or, when it has no room, on disk. Where
        this seat has some of at least `least` bytes it is those, and what is in them stays.

        count  how many it takes to keep states in memory beside those that are persisted; without
               room for them it is two, and none `keeps`
        """
        ...

    def wait_free(self, buffers: list[Buffer]) -> Buffer:
        """One that is free, waiting until a sidecar is done with it."""
        ...

    def find_free(self, buffers: list[Buffer]) -> Buffer | None:
        """One that is free now."""
        ...

    def settle(self, buffers: list[Buffer]) -> None:
        """Wait until no sidecar has any of them."""
        ...

    def keep(
        self, buffer: Buffer, step: int, seal: dict[str, Any], seconds: float, hands: bool
    ) -> None:
        """A filled buffer stays as it is, until all ranks keep a newer state. In any thread.

        seconds  what filling it took
        hands    whether it is handed over as well, next
        """
        ...

    def lent(self, gang: int, step: int) -> list[Lent]:
        """The state that all seats keep, by ranks; fewer when it is not there any more."""
        ...

    def pace(self) -> None:
        """Ask the agent to say from time to time, by `keep_at`, when to keep a state."""
        ...

    def hand(self, sidecar: str, buffer: Buffer, step: int, message: dict[str, Any]) -> None:
        """Give a filled buffer to a sidecar; it is not free until the sidecar is done. Where that
        is `beside` this process: in any thread."""
        ...

    def fork(self, name: str, entry: str, payload: dict[str, Any]) -> socket.socket:
        """A process of this rank's own, forked from the image: `entry(channel, fds, payload)`.

        name     in ps and top
        returns  the socket to it: of its fds[0] where there is an agent, else of its channel
        It dies with the rank. Only in the thread that calls.
        """
        ...

    def step_done(self, step: int) -> None:
        """Progress for the agent to see: one store into shared memory."""
        ...

    def save_at(self) -> int: ...
    def keep_at(self) -> int: ...
    def drain_at(self) -> int: ...


class AgentLink:
    """The link of a forked rank."""

    beside = True

    def __init__(self, channel: Channel, fds: list[int], payload: dict[str, Any]) -> None:
        self.run_id: str = payload["run_id"]
        self.rank: int = payload["rank"]
        self.world_size: int = payload["world_size"]
        index, here = payload["local"]
        self.local = (int(index), int(here))
        self.attempt: int = payload["gang"]
        self.generation: int = payload["generation"]
        self._channel = channel
        self._words = Words(fds[0], self.world_size)
        self.pulse = Pulse(self._words, self.rank)
        self._known = payload.get("known", ())
        self._next_id = 0
        self._answers: dict[int, tuple[dict[str, Any], list[int]]] = {}
        self._freed: set[str] = set()
        self._persisted: set[str] = set()

    def call(self, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
        for known in self._known:  # answered with the order to start
            if known["kind"] == kind and known["payload"] == payload:
                return dict(known["answer"])
        return self._ask(kind, payload)[0]

    def tell(self, kind: str, payload: dict[str, Any]) -> None:
        self._send({"tell": {"kind": kind, "payload": payload}})

    def buffers(self, size: int, least: int, count: int) -> list[Buffer]:
        answer, fds = self._ask("allocate", {"bytes": size, "least": least, "count": count})
        found = []
        for slot, fd in zip(answer["slots"], fds, strict=True):
            view = memoryview(mmap.mmap(fd, answer["bytes"]))
            os.close(fd)
            handed = slot in answer["handed"]
            found.append(Buffer(slot, view, slot not in answer["busy"], handed, answer["keeps"]))
        return found

    def wait_free(self, buffers: list[Buffer]) -> Buffer:
        while (found := self.find_free(buffers)) is None:
            self._listen(timeout=1.0)
        return found

    def find_free(self, buffers: list[Buffer]) -> Buffer | None:
        self._hear(buffers)
        return next((buffer for buffer in buffers if buffer.free), None)

    def settle(self, buffers: list[Buffer]) -> None:
        self._hear(buffers)
        while any(buffer.handed for buffer in buffers):
            self._listen(timeout=1.0)
            self._hear(buffers)

    def _hear(self, buffers: list[Buffer]) -> None:
        """What the agent has said of them until now."""
        while self._listen(timeout=0):
            pass
        for buffer in buffers:
            if buffer.slot in self._persisted:
                self._persisted.discard(buffer.slot)
                buffer.handed = False
            if buffer.slot in self._freed:
                self._freed.discard(buffer.slot)
                buffer.free = True

    def keep(
        self, buffer: Buffer, step: int, seal: dict[str, Any], seconds: float, hands: bool
    ) -> None:
        buffer.free = False
        body = {"slot": buffer.slot, "step": step, "seal": seal, "seconds": seconds, "hands": hands}
        self._send({"keep": body})

    def lent(self, gang: int, step: int) -> list[Lent]:
        found = []
        for seat in range(self.world_size):
            answer, fds = self._ask("lend", {"seat": seat, "gang": gang, "step": step})
            if "seal" not in answer:
                break
            found.append(Lent(mmap.mmap(fds[0], answer["bytes"]), answer["seal"]))
            os.close(fds[0])
        return found

    def pace(self) -> None:
        self._send({"pace": {}})

    def hand(self, sidecar: str, buffer: Buffer, step: int, message: dict[str, Any]) -> None:
        buffer.free, buffer.handed = False, True
        self._send({"hand": {"to": sidecar, "slot": buffer.slot, "step": step, **message}})

    def fork(self, name: str, entry: str, payload: dict[str, Any]) -> socket.socket:
        _, fds = self._ask("fork", {"name": name, "entry": entry, "payload": payload})
        return socket.socket(fileno=fds[0])

    def step_done(self, step: int) -> None:
        self._words.set_step(self.rank, step)

    def save_at(self) -> int:
        return self._words.save_at

    def keep_at(self) -> int:
        return self._words.keep_at

    def drain_at(self) -> int:
        return self._words.drain_at

    def _ask(self, kind: str, payload: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        self._next_id += 1
        number = self._next_id
        self._send({"call": {"id": number, "kind": kind, "payload": payload}})
        while number not in self._answers:
            self._listen(timeout=1.0)
        answer, fds = self._answers.pop(number)
        if "error" in answer:
            raise from_dict(answer["error"])
        return answer["payload"], fds

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._channel.send(message)
        except Closed:
            raise _agent_gone() from None

    def _listen(self, timeout: float) -> bool:
        """Whether there was a message."""
        try:
            found = self._channel.receive(timeout)
        except Closed:
            raise _agent_gone() from None
        if found is None:
            return False
        message, fds = found
        if "reply" in message:
            self._answers[message["reply"]["id"]] = (message["reply"], fds)
        elif "free" in message:
            self._freed.add(message["free"])
        elif "done" in message:
            self._persisted.add(message["done"])
        return True


def _agent_gone() -> PenstockError:
    return Unavailable("the agent of this rank is gone", "The run goes on with its next attempt.")
