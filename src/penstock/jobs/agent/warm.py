"""The agent's image: started, spoken to, buried. See `penstock.jobs.image` for what it does."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from penstock.base import process
from penstock.jobs.wire import Channel


class WarmImage:
    """One image process. Owned by the agent's loop; it dies with the agent in any case.

    ready  it has imported everything and can fork
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.ready = False
        self.channel, theirs = Channel.pair()
        self._log = Path(spec["logs"]) / "image.log"
        command = [sys.executable, "-m", "penstock.jobs.image"]
        command += [str(theirs.fileno()), str(os.getpid()), *spec["preload"]]
        with self._log.open("ab") as out:
            self._child = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=spec["cwd"],
                env={**os.environ, **spec["image_env"]},
                start_new_session=True,
            )
        theirs.close()

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
