"""The controller's side of the keeper: found or started, asked, ended."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from penstock.base import log
from penstock.base.errors import PenstockError, Unavailable, from_dict
from penstock.jobs.backends.places import Over, Place, Waits, Wish
from penstock.jobs.remains import clear, discard, read_processes
from penstock.jobs.rpc import Door
from penstock.jobs.wire import Channel, Closed

SOCKET = "keeper.sock"
_ANSWER = 60.0  # seconds for an answer to a short question
_START = 20.0  # seconds for a keeper to listen
_log = log.logger("controller")


def read_place(row: dict[str, Any]) -> Place:
    return Place(row["name"], Door(**row["door"]), int(row["slots"]))


def read_wish(row: dict[str, Any]) -> Wish:
    have = tuple(read_place(each) for each in row["have"])
    return Wish(**{**row, "have": have, "avoid": tuple(row["avoid"])})


def _places_in(answer: dict[str, Any]) -> list[Place]:
    return [read_place(row) for row in answer["places"]]


class KeptPlaces:
    """Places in the hands of a keeper. See `places.Places`; any thread, one question at a time.

    A keeper that died is started again by the next question; it finds what its engine still has.
    """

    def __init__(self, runtime: Path, spec: dict[str, Any]) -> None:
        self._runtime = runtime
        self._spec = {**spec, "runtime": str(runtime)}
        self._generation = 0
        self._channel: Channel | None = None
        self._asking = threading.Lock()
        self._number = int(time.time() * 1000)  # no predecessor's are the same

    def owned_by(self, generation: int) -> None:
        """Of whom it is asked from now on. Waits for nobody."""
        self._generation = generation

    def is_there(self) -> bool:
        """Whether a predecessor left a keeper."""
        with self._asking:
            return self._channel is not None or self._connect()

    def find(self) -> list[Place]:
        return _places_in(self._ask({"find": {}}))

    def want(self, wish: Wish, waits: Waits, over: Over) -> list[Place]:
        return _places_in(self._ask({"want": asdict(wish)}, waits, over))

    def leaving(self) -> dict[str, float]:
        found: dict[str, float] = self._ask({"leaving": {}})["leaving"]
        return found

    def drop(self, place: Place, silent: bool = False) -> None:
        """In a thread of its own, which ends with the answer: another question may take long."""
        question = {"drop": asdict(place), "silent": silent}
        threading.Thread(target=self._drop, args=(question,), name="dropping", daemon=True).start()

    def _drop(self, question: dict[str, Any]) -> None:
        try:
            self._ask(question)
        except PenstockError as error:  # what is left of it ends by itself, without a controller
            _log.warning("a place cannot be dropped: %s", error)

    def end(self) -> None:
        try:
            if self._channel is not None or read_processes(self._runtime):
                self._ask({"end": {}})
        except PenstockError as error:
            _log.warning("places cannot be given back: %s", error)
        with self._asking:
            self._leave()
        deadline = time.monotonic() + 2.0
        while read_processes(self._runtime) and time.monotonic() < deadline:
            time.sleep(0.005)
        discard(self._runtime)

    # -- the channel ----------------------------------------------------------------------------

    def _ask(
        self,
        question: dict[str, Any],
        waits: Waits | None = None,
        over: Over | None = None,
    ) -> dict[str, Any]:
        with self._asking:
            if over is not None and over():
                return {"places": []}
            for again in (True, False):
                try:
                    return self._asked(question, waits, over)
                except Closed:
                    self._leave()
                    if not again:
                        break
        raise Unavailable("the keeper of places died twice", "See keeper.log of the run.")

    def _asked(
        self,
        question: dict[str, Any],
        waits: Waits | None,
        over: Over | None,
    ) -> dict[str, Any]:
        if self._channel is None and not self._connect():
            self._start()
        channel = self._channel
        assert channel is not None
        self._number += 1
        channel.send({"id": self._number, **question})
        deadline = time.monotonic() + _ANSWER
        cancelled = False
        while True:
            found = channel.receive(0.1)
            if over is not None and over() and not cancelled:
                channel.send({"cancel": self._number})
                cancelled = True
            if found is None:
                if waits is None and time.monotonic() > deadline:
                    raise Closed("no answer")
                continue
            message = found[0]
            if message["id"] != self._number:
                continue  # the answer to one that was given up
            if "waits" in message:
                if waits is not None:
                    waits(message["waits"])
            elif "error" in message:
                raise from_dict(message["error"])
            else:
                return message

    def _connect(self) -> bool:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel = Channel(sock)
        try:
            sock.connect(str(self._runtime / SOCKET))
            channel.send({"attach": {"pid": os.getpid(), "generation": self._generation}})
        except (OSError, Closed):
            channel.close()
            return False
        self._channel = channel
        return True

    def _start(self) -> bool:
        """A new keeper, after making sure that no old one is left. Raises Unavailable."""
        try:
            self._runtime.mkdir(mode=0o700, exist_ok=True)
            return self._started()
        except OSError as error:
            raise Unavailable(f"no keeper of places can be started: {error}") from None

    def _started(self) -> bool:
        spec = self._runtime / "agent-spec.json"
        draft = spec.with_suffix(".new")
        facts = {"controller_pid": os.getpid(), "generation": self._generation}
        draft.write_text(json.dumps({**self._spec, **facts}))
        draft.replace(spec)
        clear(self._runtime)
        (self._runtime / SOCKET).unlink(missing_ok=True)
        logs = Path(self._spec["logs"])
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / "keeper.log").open("ab") as out:
            child = subprocess.Popen(
                [sys.executable, "-m", "penstock.jobs.backends.keeper", str(spec)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self._spec["cwd"],
                start_new_session=True,
            )
        deadline = time.monotonic() + _START
        while not self._connect():
            if child.poll() is not None or time.monotonic() > deadline:
                child.kill()
                said = (logs / "keeper.log").read_text(errors="replace")[-1000:]
                raise Unavailable(f"no keeper of places comes up: {said}", "See keeper.log.")
            time.sleep(0.005)
        threading.Thread(target=child.wait, name="keeper", daemon=True).start()
        return True

    def _leave(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
