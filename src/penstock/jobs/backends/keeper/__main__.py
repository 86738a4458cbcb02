"""`python -m penstock.jobs.backends.keeper SPEC`: keep the places of one run until told to end.

Owns: its socket, `processes.json` of the run's runtime folder, the engine's `Places`, and a thread
that asks those, one question after the other, because some take long. It ends by {"end"}, or when
there is no controller for good; the places end with it. Messages, over the socket:

    KIND: find, want, leaving, drop, end
    controller  -> {"attach": {pid, generation}}, {"id", KIND: …}, {"cancel"}
                <- {"id", "places": […]} | {"id", "error": …} | {"id", "waits": …}
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from penstock.base import log, process
from penstock.base.errors import PenstockError, Unavailable
from penstock.jobs.agent import census, seat
from penstock.jobs.agent.eyes import Eyes
from penstock.jobs.agent.master import Master
from penstock.jobs.backends.keeper.asking import SOCKET, read_place, read_wish
from penstock.jobs.backends.making import open_places
from penstock.jobs.backends.places import Places
from penstock.jobs.wire import Channel, Closed

_TICK = 0.25  # seconds
_END = 20.0  # seconds for what the engine is asked to be answered
_log = log.logger("keeper")


class Keeper:
    """See the module. One thread but for the one that asks the engine."""

    def __init__(self, spec: dict[str, Any], places: Places) -> None:
        self._spec = spec
        self._places = places
        self._eyes = Eyes()
        self._master = Master(spec, self._eyes.watch, self._eyes.forget)
        self._channel: Channel | None = None
        self._generation = 0
        self._asked: queue.Queue[tuple[Channel | None, dict[str, Any]]] = queue.Queue()
        self._cancelled = 0  # number of the question that nobody waits for any more
        self._answering = 0
        self._over = threading.Event()
        path = Path(spec["runtime"]) / SOCKET
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(8)

    def run(self) -> None:
        self._eyes.watch(self._listener, self._on_connection)
        self._master.attached(self._spec["controller_pid"])  # it may die before it attaches
        asking = threading.Thread(target=self._ask_on, name="places", daemon=True)
        asking.start()
        try:
            while not self._over.is_set():
                self._eyes.look(_TICK)
                if self._master.is_missed():
                    _log.error("there is no controller; ending")
                    self._over.set()
        finally:
            self._over.set()
            self._cancelled = self._answering
            self._asked.put((None, {}))
            asking.join(_END)
            self._places.end()

    # -- the controller -------------------------------------------------------------------------

    def _on_connection(self) -> None:
        channel = Channel(self._listener.accept()[0])
        try:
            found = channel.receive(1.0)
        except Closed:
            found = None
        who = found[0].get("attach") if found is not None else None
        if who is None or who["generation"] < self._generation:
            channel.close()
            return
        self._leave()
        self._generation, self._channel = who["generation"], channel
        self._eyes.watch(channel, self._on_message)
        self._master.attached(who["pid"])
        self._on_message()  # what came with its first

    def _leave(self) -> None:
        if self._channel is not None:
            self._eyes.forget(self._channel)
            self._channel.close()
            self._channel = None
        self._cancelled = self._answering

    def _on_message(self) -> None:
        channel = self._channel
        assert channel is not None
        try:
            messages = channel.drain()
        except Closed:
            self._leave()
            return
        for message, _ in messages:
            if "cancel" in message:
                self._cancelled = message["cancel"]
            else:
                self._asked.put((channel, message))

    # -- the engine -----------------------------------------------------------------------------

    def _ask_on(self) -> None:
        while not self._over.is_set():
            channel, message = self._asked.get()
            if channel is None:
                return
            self._answering = message["id"]
            try:
                answer = self._ask(channel, message)
            except PenstockError as error:
                answer = {"error": error.as_dict()}
            except Exception as error:  # noqa: BLE001 - an engine's own: the thread must go on
                _log.exception("the engine failed")
                answer = {"error": Unavailable(f"{error!r}", "See keeper.log.").as_dict()}
            self._say(channel, {"id": message["id"], **answer})
            if "end" in message:
                self._over.set()

    def _ask(self, channel: Channel, message: dict[str, Any]) -> dict[str, Any]:
        if "find" in message:
            return {"places": [asdict(each) for each in self._places.find()]}
        if "leaving" in message:
            return {"leaving": self._places.leaving()}
        if "drop" in message:
            self._places.drop(read_place(message["drop"]), message["silent"])
        elif "end" in message:
            self._places.end()
        elif "want" in message:
            number = message["id"]
            found = self._places.want(
                read_wish(message["want"]),
                lambda what: self._say(channel, {"id": number, "waits": what}),
                lambda: self._cancelled == number or self._over.is_set(),
            )
            return {"places": [asdict(each) for each in found]}
        return {"places": []}

    def _say(self, channel: Channel, message: dict[str, Any]) -> None:
        try:
            channel.send(message)
        except Closed:
            return  # the next controller finds what there is


def main(argv: list[str]) -> None:
    process.set_name("penstock-keeper")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the controller acts on it
    spec = json.loads(Path(argv[0]).read_text())
    log.set_up(form="json")
    runtime = Path(spec["runtime"])
    try:
        seat.take(runtime, spec["generation"])
    except seat.Superseded as reason:
        _log.warning("this keeper is not wanted", extra=log.facts(why=str(reason)))
        return
    census.write_alone(runtime, "keeper")
    Keeper(spec, open_places(spec)).run()
    os._exit(0)  # an engine's own threads end with it


if __name__ == "__main__":
    main(sys.argv[1:])
