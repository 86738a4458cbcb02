"""The agent's view of its controller: is it alive, start it again, how long is there none.

One on this machine is watched by its pidfd. One elsewhere is heard from, and when it is silent
nobody here can start it again.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from penstock.base import log

_LONELY = 60.0  # seconds without any controller after which an agent ends
_RESTARTS = 5  # controllers started again within _LONELY seconds before giving up

_log = log.logger("agent")


class Master:
    """Owns the pidfd of the controller in charge; the loop watches it.

    watch, forget  of the loop's selector
    """

    def __init__(
        self,
        spec: dict[str, Any],
        watch: Callable[[Any, Callable[[], None]], None],
        forget: Callable[[Any], None],
    ) -> None:
        self._spec = spec
        self._watch = watch
        self._forget = forget
        self._pidfd: int | None = None
        self._restarted: list[float] = []
        self._lonely_since: float | None = time.monotonic()
        self._elsewhere = bool(spec.get("elsewhere"))
        self.gone_for_good = False

    def heard(self) -> None:
        """It said something."""
        if self._elsewhere:
            self._lonely_since = time.monotonic()

    def attached(self, pid: int) -> bool:
        """A controller took charge. False when it is dead already."""
        if self._elsewhere:
            return True
        self._lonely_since = None
        self._drop()
        try:
            self._pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._died()
            return False
        self._watch(self._pidfd, self._died)
        return True

    def is_missed(self) -> bool:
        """Whether there has been none for too long."""
        lonely = self._lonely_since is not None and time.monotonic() - self._lonely_since > _LONELY
        return lonely or self.gone_for_good

    def _drop(self) -> None:
        if self._pidfd is not None:
            self._forget(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _died(self) -> None:
        self._drop()
        now = time.monotonic()
        self._lonely_since = now
        self._restarted = [at for at in self._restarted if now - at < _LONELY] + [now]
        if self._spec["controller"] is None or len(self._restarted) > _RESTARTS:
            _log.error("the controller is gone for good; ending")
            self.gone_for_good = True
            return
        _log.warning("the controller died; starting it again")
        with (Path(self._spec["logs"]) / "controller.log").open("ab") as out:
            child = subprocess.Popen(
                self._spec["controller"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self._spec["cwd"],
                start_new_session=True,
            )
        self._pidfd = os.pidfd_open(child.pid)  # it may die before it attaches
        self._watch(self._pidfd, self._died)
