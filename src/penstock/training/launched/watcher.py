"""The process that watches the launched ranks of one machine for hangs; see `watch`.

    python -m penstock.training.launched.watcher < SPEC

It looks at their page of words as an agent does (`jobs.agent.hangs`), and imports no torch. A gang
that hangs: the account becomes the attempt's end, under the lease of the run's owner, who may be
what hangs; then the ranks are ended by `ENDED_BY`, so that their launcher starts them again. It
ends with the rank that started it.
"""

from __future__ import annotations

import json
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from penstock.base import log, process
from penstock.base.errors import DiskFull, PenstockError, Unavailable
from penstock.jobs import hang
from penstock.jobs.agent.hangs import HangWatch
from penstock.training.launched.page import Neighbour, announced, open_words

ENDED_BY = int(signal.SIGRTMIN) + 10  # a signal of its own: whoever sees the exit knows the cause
_TICK = 0.25  # seconds between two looks
_ANSWER = 2.0  # seconds for a rank to end by the signal, before it is killed
_STORE = 10.0  # seconds for which the meta store may be gone
_DEAF = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
_log = log.logger("watcher")


class Watcher:
    """Of the ranks that `spec["folder"]` tells of."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._folder = Path(spec["folder"])
        self._ranks: dict[int, Neighbour] = {}
        words = open_words(self._folder, spec["world_size"])
        others = spec["here"] < spec["world_size"]
        self._watch = HangWatch(words, self._ranks, spec["hang_seconds"], others=others)

    def run(self, line: Any) -> None:
        """Until nothing comes through `line` any more, or the gang hangs."""
        while not select.select([line], [], [], _TICK)[0]:
            self._meet()
            if self._watch.look() and self._watch.account is not None:
                self._end_gang(self._watch.account)
                return

    def _meet(self) -> None:
        for rank, file in announced(self._folder).items():
            if rank not in self._ranks:
                with suppress(FileNotFoundError):  # it took its leave at this moment
                    self._ranks[rank] = Neighbour.read(file)

    def _end_gang(self, account: dict[str, Any]) -> None:
        sys.stderr.write(f"penstock: {hang.said(account)}\n")
        sys.stderr.flush()
        self._record(account)
        parent = self._spec["parent"]
        others = [each for each in self._ranks.values() if each.pid != parent]
        end(others)
        shutil.rmtree(self._folder, ignore_errors=True)
        end([each for each in self._ranks.values() if each.pid == parent])  # and with it this

    def _record(self, account: dict[str, Any]) -> None:
        deadline = time.monotonic() + _STORE
        while True:
            try:
                record(self._spec, account)
                return
            except PenstockError as error:
                gone = isinstance(error, Unavailable) and not isinstance(error, DiskFull)
                if not gone or time.monotonic() > deadline:
                    _log.error("the hang is not recorded", extra=log.facts(error=str(error)))
                    return
            time.sleep(0.2)


def record(spec: dict[str, Any], account: dict[str, Any]) -> bool:
    """The account as the end of the attempt, in one transaction under the lease of its generation.
    False: the run is another owner's by now. Raises what the meta store raises."""
    from penstock.jobs import rows
    from penstock.jobs.decide import Hung
    from penstock.meta import open_meta

    run_id, attempt = spec["run_id"], spec["attempt"]
    where = account["where"] or account["state"]
    hung = Hung(account["rank"], account["step"], where, account)
    reached = max(each["step"] for each in account["ranks"])
    meta = open_meta(spec["meta"])
    try:
        with meta.read() as db:
            lease = db.find_lease(f"run/{run_id}")
        if lease is None or lease.generation != spec["generation"]:
            return False
        with meta.write(lease) as tx:
            tx.event(f"run/{run_id}", "rank.hung", {**account, "attempt": attempt})
            rows.end_attempt(tx, run_id, attempt, hung.cause, reached, account)
    finally:
        meta.close()
    return True


def end(ranks: list[Neighbour]) -> None:
    """End them, and see that they do."""
    for each in ranks:
        each.end(ENDED_BY)
    deadline = time.monotonic() + _ANSWER
    while any(not each.dead for each in ranks):
        if time.monotonic() > deadline:
            for each in ranks:
                each.end(signal.SIGKILL)
            return
        time.sleep(0.01)


def main() -> int:
    for each in _DEAF:  # schedulers and terminals send these to all processes: ranks act on them
        signal.signal(each, signal.SIG_IGN)
    process.set_name("penstock-watch")
    line = sys.stdin.buffer.readline()
    if not line:  # the rank died before it had said anything
        return 0
    spec = json.loads(line)
    process.die_with_parent(spec["parent"])
    log.set_up("warning")
    Watcher(spec).run(sys.stdin.buffer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
