"""`python -m penstock.jobs.probing DESCRIPTOR ENGINE`: Ray's driver for questions about a cluster.

Owns: the connection to Ray, and a thread that asks it, one question after the other. It ends with
its socket, in the middle of whatever it asks; actors of it end with it, by Ray. Messages:

    whoever asks  -> {"nodes": {}}    what there is and what runs hold of it (`ray.holding`)
                  -> {"examine": …}   every node, looked at (`ray.examining`)
                  <- {"step": what is done now}, then {"answer": …} | {"error": …}
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from typing import Any

from penstock.base import log, process
from penstock.base.errors import PenstockError, Unavailable
from penstock.jobs.probing.asking import socket_of
from penstock.jobs.wire import Channel, Closed

_log = log.logger("probing")


def main(argv: list[str]) -> None:
    process.set_name("penstock-probe")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever asks acts on it, and ends us
    log.set_up(form="json")
    channel, engine = socket_of(argv[0]), argv[1]
    asked: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_answer_on, args=(channel, engine, asked), daemon=True).start()
    try:
        while True:
            found = channel.receive()
            if found is not None:
                asked.put(found[0])
    except Closed:
        os._exit(0)  # Ray's own threads end with it


def _answer_on(channel: Channel, engine: str, asked: queue.Queue[dict[str, Any]]) -> None:
    from penstock.jobs.backends.ray.cluster import Cluster

    cluster = Cluster(engine)
    while True:
        question = asked.get()
        try:
            told = {"answer": _answer(cluster, channel, question)}
        except PenstockError as error:
            told = {"error": error.as_dict()}
        except Exception as error:  # noqa: BLE001 - Ray's own: whoever asks is to hear of it
            _log.exception("Ray failed")
            told = {"error": Unavailable(f"Ray failed: {error!r}", "See `ray status`.").as_dict()}
        try:
            channel.send(told)
        except Closed:
            return  # the process ends


def _answer(cluster: Any, channel: Channel, question: dict[str, Any]) -> Any:
    from penstock.jobs.backends.ray import examining, holding

    if "nodes" in question:
        return holding.told(cluster)
    return examining.examine(cluster, question["examine"], lambda what: _say(channel, what))


def _say(channel: Channel, what: str) -> None:
    channel.send({"step": what})


if __name__ == "__main__":
    main(sys.argv[1:])
