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
from pathlib import Path
from typing import Any

import grpc

from penstock.base import log, process
from penstock.jobs import rpc
from penstock.jobs.agent import seat
from penstock.jobs.agent.loop import Agent
from penstock.jobs.agent.warm import fork_image


class Sessions:
    """The gRPC side: at most one controller is listened to, the one of the highest generation."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._newest = 0
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
        self._agent.submit({"attached": first})
        threading.Thread(
            target=self._listen, args=(messages, generation), name="commands", daemon=True
        ).start()
        yield {"attached": {"pid": os.getpid(), "generation": generation}}
        cursor = 0
        outbox = self._agent.outbox
        while context.is_active() and generation == self._newest and not outbox.closed:
            for event in outbox.after(cursor, timeout=0.5):
                cursor = event["seq"]
                yield event

    def _listen(self, messages: Iterator[dict[str, Any]], generation: int) -> None:
        try:
            for message in messages:
                if generation != self._newest:
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
    server = rpc.serve(f"unix:{spec['socket']}", Sessions(agent).session)
    try:
        agent.run()
    finally:
        agent.outbox.close()
        server.stop(grace=0.2).wait()


if __name__ == "__main__":
    main(sys.argv[1:])
