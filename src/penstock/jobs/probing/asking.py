"""Questions to a Ray cluster, by a process of their own.

A driver of Ray ends with its cluster, in the middle of whatever it does, and that must not be a
command or a server. So it lives in a child, which is asked over a socket and ends with it. One that
died is started again by the next question.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from penstock.base.errors import Unavailable, from_dict
from penstock.jobs.backends.ray.cluster import meaning
from penstock.jobs.wire import Channel, Closed

Hear = Callable[[str], None]  # told what is being done
_SILENCE = 90.0  # seconds without a word, beyond those that the question allows for an answer
_END = 5.0  # seconds for the child to end


class Asking:
    """One engine's. Any thread, one question at a time.

    Owns the child, which ends with `close`, or with this process: its socket ends then.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._asking = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._said: IO[bytes] | None = None

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, hear: Hear, patience: float = 0.0, **question: Any) -> Any:
        """The answer to {KIND: …}; see `__main__`. Raises what hindered it: Unavailable,
        AccessDenied, BadInput, MissingExtra.

        patience  seconds that a single step of it may take
        """
        with self._asking:
            if self._channel is None:
                self._start()
            try:
                return self._asked(question, hear, patience)
            except Closed:
                said = RuntimeError(self._last_words())
                raise meaning(said, f"asking the cluster of {self._engine}") from None
            finally:
                if self._child is not None and self._child.poll() is not None:
                    self._close()

    def _asked(self, question: dict[str, Any], hear: Hear, patience: float) -> Any:
        channel = self._channel
        assert channel is not None
        channel.send(question)
        heard_at = time.monotonic()
        while True:
            found = channel.receive(1.0)
            if found is None:
                if time.monotonic() - heard_at > patience + _SILENCE:
                    self._close()  # what it would still answer, nobody waits for
                    raise Unavailable(
                        f"Ray gave no answer within {patience + _SILENCE:g} s",
                        "Look at `ray status`.",
                    )
                continue
            message, heard_at = found[0], time.monotonic()
            if "step" in message:
                hear(message["step"])
            elif "error" in message:
                raise from_dict(message["error"])
            else:
                return message["answer"]

    def close(self) -> None:
        with self._asking:
            self._close()

    def _start(self) -> None:
        channel, theirs = Channel.pair()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the child
        program = [sys.executable, "-m", "penstock.jobs.probing"]
        with theirs:
            self._child = subprocess.Popen(
                [*program, str(theirs.fileno()), self._engine],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._channel = channel

    def _close(self) -> None:
        """The child ends with its socket; what hangs is killed."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._child is not None:
            try:
                self._child.wait(_END)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
            self._child = None
        if self._said is not None:
            self._said.close()
            self._said = None

    def _last_words(self) -> str:
        """The end of what it said, and that it is buried."""
        assert self._said is not None
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - 2000))
        said = self._said.read().decode(errors="replace").strip()
        self._close()
        return said or "the process that asks it died without a word"


def socket_of(number: str) -> Channel:
    """In the child: the channel whose descriptor it was given."""
    return Channel(socket.socket(fileno=int(number)))
