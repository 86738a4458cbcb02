"""A replica's process as its keeper sees it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

_LARGEST_LOG = 10 << 20  # bytes; then the log is put aside as replica.log.1
_opener = build_opener(ProxyHandler({}))  # loopback, whatever proxy the environment names
_TAIL = 2000  # bytes of the log that an error shows


class Worker:
    """One replica process and the daemon thread that waits for its word and its end.

    The kernel kills the process when the *thread* that started it ends (PDEATHSIG): start it from
    the keeper's thread, which outlives it. `woken` is called from the waiting thread after every
    change of `ready`, `error` and `exit_code`.
    """

    def __init__(
        self,
        reference: str,
        arguments: Sequence[str],
        log: Path,
        woken: Callable[[], None],
        silent_seconds: float = 30.0,
    ) -> None:
        self.reference = reference
        self.started_at = time.monotonic()
        self.ready: dict[str, Any] | None = None
        self.ready_at: float | None = None
        self.error: dict[str, Any] | None = None
        self.exit_code: int | None = None
        self._log = log
        self._woken = woken
        self._silent_seconds = silent_seconds
        self._hung = False
        self._kill_at: float | None = None
        reading, writing = os.pipe()
        try:
            self._process = self._spawn(arguments, writing)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        threading.Thread(
            target=self._wait, args=(reading,), name=f"replica-{self.pid}", daemon=True
        ).start()

    def _spawn(self, arguments: Sequence[str], writing: int) -> subprocess.Popen[bytes]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if self._log.exists() and self._log.stat().st_size > _LARGEST_LOG:
            self._log.replace(self._log.with_name(self._log.name + ".1"))
        command = [sys.executable, "-m", "penstock.serving.replica", *arguments]
        command += ["--parent", str(os.getpid()), "--ready-fd", str(writing)]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[writing],
                start_new_session=True,  # Ctrl-C on the terminal is for the keeper
            )

    def _wait(self, reading: int) -> None:
        with os.fdopen(reading, "rb") as pipe:
            line = pipe.readline()
        if line.endswith(b"\n"):  # otherwise it died before or while saying it
            said = json.loads(line)
            self.error = said.get("error")
            if self.error is None:
                self.ready, self.ready_at = said, time.monotonic()
                self._woken()
                self._watch(said["metrics"])
        self.exit_code = self._process.wait()
        self._woken()

    def _watch(self, page: str) -> None:
        """Until it ends: ask for its metrics now and then, and kill it when it is silent.

        They are answered by a thread of their own, however many requests wait: silence means a
        process that does not run (stopped, or stuck with the GIL), never one that is busy.
        """
        pause = self._silent_seconds / 4  # two pauses and two time-outs
        silent = 0
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:  # it ended, and `_signal` reaped it
            return
        try:
            ended = select.poll()
            ended.register(handle, select.POLLIN)
            while not ended.poll(pause * 1000):
                silent = 0 if _answers(page, pause) else silent + 1
                if silent == 2:
                    self._hung = True
                    self.kill()
        finally:
            os.close(handle)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def gone(self) -> bool:
        return self.exit_code is not None

    @property
    def cause(self) -> str:
        """How it ended, for people: "SIGKILL", "exit code 3" or "hanging"."""
        if self._hung:
            return "hanging"
        code = self.exit_code or 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def leave(self, patience: float) -> None:
        """Ask it to answer until its clients have gone to the successor."""
        self._signal(signal.SIGUSR1, patience)

    def stop(self, patience: float) -> None:
        """Ask it to finish what is in flight and to end; killed after `patience` seconds."""
        self._signal(signal.SIGTERM, patience)

    def kill(self) -> None:
        self._signal(signal.SIGKILL, 0.0)

    def enforce(self) -> None:
        """Kill it when it was told to go and its time is over."""
        if not self.gone and self._kill_at is not None and time.monotonic() > self._kill_at:
            self.kill()

    def tail(self) -> str:
        """The end of its log."""
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, self._log.stat().st_size - _TAIL))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def _signal(self, sig: signal.Signals, patience: float) -> None:
        self._kill_at = time.monotonic() + patience
        if self.exit_code is None:
            # Not yet reaped by `_wait`, or reaped just now: Popen looks before it signals.
            self._process.send_signal(sig)


def _answers(page: str, timeout: float) -> bool:
    try:
        with _opener.open(page, timeout=timeout) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
