"""Processes of subjects: started in sessions of their own, and gone when the benchmark is.

The benchmark is the subreaper of everything that its subjects start, in whatever session, so that
`clear` reaches all of it. If the benchmark itself is killed, the kernel sends its children SIGTERM.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from penstock.base.process import become_subreaper, die_with_parent

_PATIENCE = 5.0  # seconds from SIGTERM to SIGKILL
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR")  # of the environment; the rest is the benchmark's to say


class Children:
    """Owns the processes it starts and all their descendants; `clear` ends them."""

    def __init__(self) -> None:
        self._started = False

    def start(
        self,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """env  on top of a bare one, with one thread per process: the same for every subject
        log  takes stdout and stderr
        """
        if not self._started:
            become_subreaper()
            self._started = True
        bare = {key: os.environ[key] for key in _KEPT if key in os.environ}
        parent = os.getpid()
        output = log.open("ab") if log else None
        try:
            return subprocess.Popen(
                [str(part) for part in command],
                env={**bare, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **(env or {})},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output or subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the benchmark, which then clears up
                preexec_fn=lambda: die_with_parent(parent, signal.SIGTERM),
            )
        finally:
            if output:
                output.close()

    def clear(self) -> None:
        """SIGTERM to all descendants, SIGKILL to those that do not go."""
        if not self._started:
            return
        for sig, patience in ((signal.SIGTERM, _PATIENCE), (signal.SIGKILL, _PATIENCE)):
            left = psutil.Process().children(recursive=True)
            for child in left:
                try:
                    child.send_signal(sig)
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(left, timeout=patience)
            if not psutil.Process().children(recursive=True):
                return
