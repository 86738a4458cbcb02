"""The agent's image: started or forked, spoken to, buried. See `penstock.jobs.image` for what it
does."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from penstock.base import process
from penstock.jobs import image
from penstock.jobs.wire import Channel

_forked: list[tuple[Forked, Channel]] = []  # an image that waits for its agent's loop


class Forked:
    """A child of this process, as `subprocess.Popen` shows its own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        return self._wait(os.WNOHANG)

    def wait(self) -> int:
        code = self._wait(0)
        assert code is not None
        return code

    def _wait(self, how: int) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, how)
            self._status = status if pid else None
        return None if self._status is None else os.waitstatus_to_exitcode(self._status)


def fork_image(spec: dict[str, Any], *not_its: int) -> None:
    """Fork the first image from this process, which is warm and has no thread yet.

    not_its  descriptors that the image must not keep open
    """
    channel, theirs = Channel.pair()
    agent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            channel.close()
            for fd in not_its:
                os.close(fd)
            image.be_forked(theirs, agent, _log_of(spec), spec["image_env"])
        finally:
            os._exit(70)
    theirs.close()
    _forked.append((Forked(pid), channel))


def _log_of(spec: dict[str, Any]) -> Path:
    return Path(spec["logs"]) / "image.log"


def _start(spec: dict[str, Any]) -> tuple[subprocess.Popen[bytes], Channel]:
    channel, theirs = Channel.pair()
    command = [sys.executable, "-m", "penstock.jobs.image"]
    command += [str(theirs.fileno()), str(os.getpid()), *spec["preload"]]
    with theirs, _log_of(spec).open("ab") as out:
        child = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=spec["cwd"],
            env={**os.environ, **spec["image_env"]},
            start_new_session=True,
        )
    return child, channel


class WarmImage:
    """One image process. Owned by the agent's loop; it dies with the agent in any case.

    ready  it has imported everything and can fork
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.ready = False
        self._log = _log_of(spec)
        self._child: Forked | subprocess.Popen[bytes]
        self._child, self.channel = _forked.pop() if _forked else _start(spec)

    @property
    def pid(self) -> int:
        return self._child.pid

    def has_news(self, timeout: float) -> bool:
        """Whether it said something, waiting up to `timeout` seconds."""
        return bool(select.select([self.channel.fileno()], [], [], timeout)[0])

    def bury(self) -> int:
        """It died: collect it. Returns its exit code."""
        self.channel.close()
        return self._child.wait()

    def last_words(self) -> str:
        """The end of its log: why it could not start."""
        return self._log.read_text(errors="replace")[-2000:]

    def end(self) -> None:
        if self._child.poll() is None:
            process.kill_quietly(self._child.pid, signal.SIGKILL)
            self._child.wait()
