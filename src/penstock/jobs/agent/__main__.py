"""`python -m penstock.jobs.agent SPEC`: start one agent and run until it is told to end.

A nursery calls `main` in a fork of itself, which is warm: the agent's first image is forked here.
Its generation comes from the spec; see `seat.py` for what happens when two are started."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc

from penstock.base import log, process
from penstock.jobs.agent import door, seat
from penstock.jobs.agent.giving import Giving
from penstock.jobs.agent.lending import Lending
from penstock.jobs.agent.loop import Agent
from penstock.jobs.agent.warm import fork_image
from penstock.jobs.rpc import Door


class Sessions:
    """The gRPC side: at most one controller is listened to, the one of the highest generation, by
    its newest session.


    lends  the door for neighbours, which the controller tells them of
    """

    def __init__(self, agent: Agent, lends: Door | None) -> None:
        self._agent = agent
        self._lends = {"lends": asdict(lends)} if lends is not None else {}
        self._giving = Giving(agent.spec, agent.had)
        self._newest = 0
        self._session = 0  # number of the session in use
        self._lock = threading.Lock()

    def session(
        self, messages: Iterator[dict[str, Any]], context: grpc.ServicerContext
    ) -> Iterator[dict[str, Any]]:
        first = next(messages)["attach"]
        generation = int(first["generation"])
        with self._lock:
            if generation < self._newest:
                context.abort(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"generation {generation} is older than {self._newest}",
                )
            self._newest = generation
            self._session += 1
            number = self._session
        self._agent.submit({"attached": first})
        threading.Thread(
            target=self._listen, args=(messages, number), name="commands", daemon=True
        ).start()
        heard = self._agent.heard if first.get("again") else 0
        yield {
            "attached": {
                "pid": os.getpid(),
                "generation": generation,
                "heard": heard,
                **self._lends,
            }
        }
        cursor = 0
        outbox = self._agent.outbox
        while context.is_active() and number == self._session and not outbox.closed:
            for event in outbox.after(cursor, timeout=0.5):
                cursor = event["seq"]
                yield event

    def files(self, asked: dict[str, Any], _: grpc.ServicerContext) -> Iterator[dict[str, Any]]:
        """What was written beyond what the controller has, whoever it is."""
        yield from self._giving.beyond(asked["have"])

    def _listen(self, messages: Iterator[dict[str, Any]], number: int) -> None:
        try:
            for message in messages:
                if number != self._session:
                    return
                self._agent.submit(message)
        except (grpc.RpcError, queue.Empty):
            return  # the stream ended; the agent sees its controller's death by itself


def main(argv: list[str], warm: bool = False) -> None:
    """warm  this process has imported what its image is to have, and has no thread"""
    process.become_subreaper()
    process.set_name("penstock-agent")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    spec = json.loads(Path(argv[0]).read_text())
    if "parent" in spec:  # a host's, and not for a life of its own
        process.die_with_parent(spec["parent"])
    log.set_up(form="json")
    try:
        held = seat.take(Path(spec["runtime"]), spec["generation"])
    except seat.Superseded as reason:
        log.logger("agent").warning("this agent is not wanted", extra=log.facts(why=str(reason)))
        return
    if warm:
        fork_image(spec, held)
    agent = Agent(spec)
    signal.signal(signal.SIGTERM, lambda *_: agent.submit({"preempted": {}}))
    lending = _lend(agent)
    sessions = Sessions(agent, lending[1] if lending is not None else None)
    servers = [door.open_for(spec, sessions.session, sessions.files)]
    servers += [lending[0]] if lending is not None else []
    try:
        agent.run()
    finally:
        agent.outbox.close()
        for ending in [server.stop(grace=0.2) for server in servers]:
            ending.wait()


def _lend(agent: Agent) -> tuple[grpc.Server, Door] | None:
    """Serve neighbours, where the agent may have some. The caller stops the server."""
    spec = agent.spec
    if "node" not in spec:
        return None
    shards = bool(spec.get("neighbours", False))
    read = Lending(Path(spec["node"]["home"]), shards, agent.parts).read
    return door.open_for_neighbours(spec, read)


if __name__ == "__main__":
    main(sys.argv[1:])
