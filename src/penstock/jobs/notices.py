"""What signals mean to the processes of a run.

SIGTERM says that the machine, the job or the container is about to be taken away: schedulers send
it to all processes at once, and SIGKILL some time later. The controller acts on it, and an agent
passes it on: ranks save after their step and leave, within `grace_seconds`. All others note it and
go on, because without them nothing could be saved.
"""

from __future__ import annotations

import os
import signal
from typing import Protocol

KILL = signal.SIGUSR1  # to a controller: end the gang at once


class _Steered(Protocol):
    def preempt(self) -> None: ...
    def kill(self) -> None: ...


def listen(controller: _Steered) -> None:
    """In the controller's process: SIGTERM preempts, SIGUSR1 kills."""
    signal.signal(signal.SIGTERM, lambda *_: controller.preempt())
    signal.signal(KILL, lambda *_: controller.kill())


def ignore_sigterm() -> None:
    """In the image. By a handler and not SIG_IGN, which whatever is started from here would
    inherit."""
    signal.signal(signal.SIGTERM, lambda *_: None)


def leave_sigterm_to_the_controller() -> None:
    """In what the image forks. Processes that are forked from here, by multiprocessing, say, end
    by SIGTERM as ever."""
    ignore_sigterm()
    os.register_at_fork(after_in_child=_as_ever)


def _as_ever() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
