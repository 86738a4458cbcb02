"""The backend of one machine: an agent beside the controller, forked or started by it.

Found and lost by what it left in the run's runtime folder (`jobs.remains`); spoken to over a Unix
socket in it.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from penstock.base import log
from penstock.base.errors import Unavailable
from penstock.jobs.nursery.asking import ask_for_agent
from penstock.jobs.remains import clear, discard, read_processes
from penstock.jobs.rpc import Message, Session

_ATTACH = 20.0  # seconds for a new agent to answer
_log = log.logger("controller")


class LocalAgent:
    """One run's agent on this machine, as its controller sees it."""

    def __init__(self, runtime: Path, spec: dict[str, Any]) -> None:
        self._inbox: queue.Queue[tuple[object, Message]] = queue.Queue()
        self._runtime = runtime
        self._spec = {**spec, "runtime": str(runtime), "socket": str(runtime / "agent.sock")}
        self._session: Session | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def find(self, generation: int) -> bool:
        """Attach to an agent that a predecessor left. False when there is none."""
        agents = [row for row in read_processes(self._runtime) if row["role"] == "agent"]
        if not agents:
            return False
        try:
            self._attach(generation, timeout=5.0)
        except Unavailable:
            _log.warning("an agent is there but does not answer; replacing it")
            return False
        return True

    def start(self, generation: int) -> None:
        """Start a new agent, after making sure that nothing of an old one is left: forked from the
        script's nursery, or cold."""
        facts = {"controller_pid": os.getpid(), "generation": generation}
        spec = self._runtime / "agent-spec.json"
        draft = spec.with_suffix(".new")
        draft.write_text(json.dumps({**self._spec, **facts}))
        draft.replace(spec)  # first: an agent that somebody else just started sees it and ends
        clear(self._runtime)
        (self._runtime / "agent.sock").unlink(missing_ok=True)
        logs = Path(self._spec["logs"])
        logs.mkdir(parents=True, exist_ok=True)
        if not ask_for_agent(self._runtime, self._spec, spec, logs / "agent.log"):
            self._child = self._start_cold(spec, logs / "agent.log")
        self._attach(generation, _ATTACH)

    def _start_cold(self, spec: Path, log_file: Path) -> subprocess.Popen[bytes]:
        with log_file.open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "penstock.jobs.agent", str(spec)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self._spec["cwd"],
                start_new_session=True,
            )

    def _attach(self, generation: int, timeout: float) -> None:
        session = Session(f"unix:{self._spec['socket']}", self._inbox)
        session.attach(generation, {"pid": os.getpid()}, timeout)
        self._session = session

    def hear(self, timeout: float) -> Message | None:
        """Of the session in use; what one that was given up still said is passed over."""
        try:
            while True:
                source, message = self._inbox.get(timeout=timeout)
                if source is self._session:
                    return message
        except queue.Empty:
            return None

    def send(self, **message: Any) -> None:
        if self._session is not None:
            self._session.send(message)

    def room(self) -> int | None:
        return None

    def lost(self) -> None:
        """The session ended: give it up and kill whatever is left of the agent."""
        if self._session is not None:
            self._session.close()
            self._session = None
        clear(self._runtime)
        self._reap()

    def kept(self) -> tuple[int, int, int]:
        return 0, 0, 0  # its memory went with it

    def end(self, timeout: float = 5.0) -> None:
        """Tell the agent to end, and see that it does."""
        self.send(shutdown={})
        deadline = time.monotonic() + timeout
        while read_processes(self._runtime) and time.monotonic() < deadline:
            time.sleep(0.002)
        self.lost()
        discard(self._runtime)

    def _reap(self) -> None:
        if self._child is not None:
            self._child.wait()
            self._child = None
