"""A rank's data workers: jobs out, batches in, the dead replaced.

No thread: messages are read when the step asks for a batch. A job is a function of its picks, so
when a worker dies its jobs go to the one that replaces it, and the batches are the same.
"""

from __future__ import annotations

import os
import select
import signal
from collections import deque
from contextlib import suppress
from typing import Any

from penstock.base.errors import Unavailable, from_dict
from penstock.base.log import facts, logger
from penstock.data.order import Rows
from penstock.data.pipeline.hints import Hints
from penstock.data.pipeline.opening import Opening
from penstock.data.pipeline.options import Fork
from penstock.data.pipeline.plan import Picks, Plan
from penstock.data.pipeline.shared import Reader
from penstock.data.pipeline.tensors import to_torch
from penstock.data.pipeline.threads import Ready, Sizes
from penstock.data.pipeline.travel import packed
from penstock.data.pipeline.work import Steps
from penstock.data.pipeline.worker import job_of, text_of
from penstock.jobs import forks
from penstock.jobs.wire import Channel, Closed

ENTRY = "penstock.data.pipeline.worker:main"
_MOST_JOBS = 4  # given to one worker and not answered: they fit into its socket
_MOST_DEATHS = 3  # of workers over one job
_log = logger("data")

Result = list[Any] | Exception


class Worker:
    """One process and what it was given. `jobs`: not answered yet, oldest first."""

    def __init__(self, fork: Fork, work: dict[str, Any], number: int) -> None:
        self.channel = Channel(fork(f"data-{number}", ENTRY, {}))
        self.jobs: dict[int, dict[str, Any]] = {}
        self.freed: deque[int] = deque()
        self._reader = Reader(self.freed.append)
        self.pid: int | None = None  # known once it has said it
        self._pidfd: int | None = None
        self.channel.send({"work": work})

    def give(self, number: int, job: dict[str, Any]) -> None:
        """Raises Closed."""
        self.jobs[number] = job
        free = []
        while self.freed:
            free.append(self.freed.popleft())
        self.channel.send({**job, "free": free})

    def read(self) -> list[tuple[int, Result]]:
        """What it has answered. Raises Closed when it is dead."""
        found: list[tuple[int, Result]] = []
        for message, handles in self.channel.drain():
            if "done" in message:
                self.jobs.pop(message["done"])
                found.append((message["done"], self._reader.read(message, handles)))
            elif "failed" in message:
                self.jobs.pop(message["failed"])
                found.append((message["failed"], from_dict(message["error"])))
            elif "hello" in message:
                self.pid = message["hello"]
                with suppress(ProcessLookupError):
                    self._pidfd = os.pidfd_open(message["hello"])
        return found

    def close(self) -> None:
        """Idle, it ends by itself; busy, it is ended."""
        if self._pidfd is not None:
            if self.jobs:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            self._pidfd = None
        self.channel.close()


class Pool:
    """Owns `count` workers until `close`, which ends them; they end in any case with this process
    and with the image that forked them.

    fork  (name, entry, payload) -> the socket to a new process; default: from an image of this
          process's own
    Raises CannotTravel for a source or function that another process cannot have.
    """

    def __init__(
        self, count: int, opening: Opening, steps: Steps, *, fork: Fork | None = None
    ) -> None:
        self._fork = fork or forks.fork
        self._work = packed(opening, steps)
        self._numbers = 0
        self._deaths: dict[int, int] = {}
        self._workers: list[Worker] = []
        for number in range(count):
            self._workers.append(Worker(self._fork, self._work, number))

    @property
    def pending(self) -> int:
        """Jobs that are not answered yet."""
        return sum(len(each.jobs) for each in self._workers)

    @property
    def room(self) -> int:
        return _MOST_JOBS * len(self._workers) - self.pending

    def __len__(self) -> int:
        return len(self._workers)

    def submit(self, picks: Picks) -> int:
        """Give a job to the worker that has fewest. Returns its number."""
        self._numbers += 1
        number = self._numbers
        self._give(min(self._workers, key=lambda each: len(each.jobs)), number, job_of(0, picks))
        return number

    def _give(self, worker: Worker, number: int, job: dict[str, Any]) -> None:
        try:
            worker.give(number, {**job, "job": number})
        except Closed:
            self._replace(worker)

    def tell(self, rows: Rows) -> None:
        """These rows are wanted soon."""
        for worker in list(self._workers):
            try:
                worker.channel.send({"soon": text_of(rows)})
            except Closed:
                self._replace(worker)

    def wait(self) -> list[tuple[int, Result]]:
        """Results that are there, waiting for at least one event. Raises Unavailable."""
        channels = {each.channel.fileno(): each for each in self._workers}
        ready, _, _ = select.select(list(channels), [], [])
        found = []
        for handle in ready:
            try:
                found += channels[handle].read()
            except Closed:
                self._replace(channels[handle])
        return found

    def _replace(self, worker: Worker) -> None:
        """It died. Its jobs, also those whose results were under way, go to a new one."""
        at = self._workers.index(worker)
        jobs = dict(worker.jobs)
        _log.warning("a data worker died; replacing it", extra=facts(worker=at, jobs=len(jobs)))
        worker.jobs.clear()
        worker.close()
        if jobs:
            oldest = next(iter(jobs))
            self._deaths[oldest] = self._deaths.get(oldest, 0) + 1
            if self._deaths[oldest] >= _MOST_DEATHS:
                raise Unavailable(
                    f"{_MOST_DEATHS} data workers died over the batch of step "
                    f"{jobs[oldest]['first']}",
                    "Look into the log and at the memory; workers=0 makes batches in the step's "
                    "own process, where a debugger works.",
                    step=jobs[oldest]["first"],
                )
        self._workers[at] = Worker(self._fork, self._work, at)
        for number, job in jobs.items():
            self._give(self._workers[at], number, job)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._workers = []

    def __del__(self) -> None:
        if hasattr(self, "_workers"):
            self.close()


class PoolFeeder:
    """Batches of consecutive steps, made by a pool; see `threads.ThreadFeeder` for the rest.

    What an earlier feeder asked of the pool and did not take is passed over.
    """

    def __init__(
        self,
        pool: Pool,
        plan: Plan,
        hints: Hints,
        first: int,
        last: int | None,
        *,
        ahead_bytes: int,
        singly: bool,
    ) -> None:
        self._pool, self._plan, self._hints = pool, plan, hints
        self._last, self._limit = last, ahead_bytes
        self.step = first
        self._next_step = first
        self._sizes = Sizes(ahead_bytes, singly)
        self._asked: deque[tuple[int, Picks]] = deque()
        self._made: dict[int, Result] = {}
        self._taken: list[Ready] = []  # of the piece in hand, last first

    def take(self) -> Ready:
        if not self._taken:
            self._taken = self._next()
            self._taken.reverse()
        self.step += 1
        return self._taken.pop()

    def _next(self) -> list[Ready]:
        self._ask()
        number, picks = self._asked[0]
        while number not in self._made:
            self._collect()
            self._ask()
        self._asked.popleft()
        found = self._made.pop(number)
        if isinstance(found, Exception):
            raise found
        self._ask()
        counts = picks.counts or [()] * len(found)
        steps = range(picks.first, picks.first + len(found))
        return [
            Ready(step, to_torch(batch), count)
            for step, batch, count in zip(steps, found, counts, strict=True)
        ]

    def _collect(self) -> None:
        mine = {number for number, _ in self._asked}
        for number, result in self._pool.wait():
            if number in mine:
                self._made[number] = result
                if isinstance(result, list) and result:
                    self._sizes.learn(result[0])

    def _ask(self) -> None:
        """Give out jobs while there is room."""
        while (self._last is None or self._next_step < self._last) and self._may():
            count = self._sizes.at_once
            if self._last is not None:
                count = min(count, self._last - self._next_step)
            picks = self._plan.picks(self._next_step, count)
            if (soon := self._hints.soon(picks)) is not None:
                self._pool.tell(soon)
            self._next_step += len(picks)
            self._asked.append((self._pool.submit(picks), picks))

    def _may(self) -> bool:
        if not self._asked:
            return True
        if self._pool.room <= 0:
            return False
        if not self._sizes.of_batch:
            return len(self._asked) < len(self._pool)
        ahead = sum(len(picks) for _, picks in self._asked) + self._sizes.at_once
        return ahead * self._sizes.of_batch <= self._limit

    def close(self) -> None:
        self._asked.clear()
        self._made.clear()
        self._taken.clear()
