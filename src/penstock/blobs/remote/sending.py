"""One store's requests in one process: slots, retries, back-off, hedges, counters.

Everything here runs on the loop of `runtime.py`, one task at a time, so nothing is locked.

A request that fails in a way that may pass is sent again: after a pause that doubles, with jitter,
and only with a token of the store's retry budget, so that a store that is down gets about one
request a second from a process, however many callers wait. It ends with the caller's error when
the store has been failing this caller for `deadline` seconds. A store that was never heard from
and refuses, or whose name is not known, is more likely misspelt than down: then it is 10 s.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from penstock.base.log import facts, logger
from penstock.blobs.remote.address import Address
from penstock.blobs.remote.counters import Counters
from penstock.blobs.remote.failures import Failure, understand
from penstock.blobs.remote.pace import Latencies, RetryBudget, Slots, pause

T = TypeVar("T")
_FIRST_CONTACT = 10.0  # seconds
_LEAST_HEDGE = 0.01  # seconds; nothing faster is worth a second request
_log = logger("blobs")


class Final(Exception):
    """A request ended with this failure; never leaves the package.

    doubtful  a try before it may have had its effect
    """

    def __init__(self, failure: Failure, tries: int, seconds: float, doubtful: bool) -> None:
        super().__init__(failure)
        self.failure, self.tries, self.seconds = failure, tries, seconds
        self.doubtful = doubtful


class Sender:
    """Owns no thread and no socket, only numbers; lives as long as its process."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.counters = Counters()
        self._chance = random.Random()
        self._slots = Slots(address.connections)
        self._busy = 0
        self._free = asyncio.Condition()
        self._recovered = asyncio.Event()
        self._budget: RetryBudget | None = None
        self._latencies: dict[int, Latencies] = {}
        self._heard = False  # whether the store ever answered here
        self._failing = False

    async def send(
        self, kind: str, attempt: Callable[[], Awaitable[T]], *, nbytes: int = 0, read: int = -1
    ) -> tuple[T, bool]:
        """The answer, and whether a try before it was doubtful. Raises Final.

        kind     for the counters
        attempt  sends the request once
        nbytes   of its body
        read     bytes asked for, when it only reads and may therefore be sent twice at once
        """
        tries, since, doubtful = 0, None, False
        while True:
            tries += 1
            try:
                answer = await self._once(kind, attempt, nbytes, read)
            except Exception as error:  # noqa: BLE001 - obstore's, whatever they are
                failure = understand(error)
            else:
                self._succeeded()
                return answer, doubtful
            now = _now()
            since = now if since is None else since
            if failure.status is not None:
                self._heard = True
            if not failure.again:
                raise Final(failure, tries, now - since, doubtful)
            doubtful = doubtful or failure.doubtful
            await self._pause(failure, tries, now, since, doubtful)
            self.counters.retries += 1

    async def _pause(
        self, failure: Failure, tries: int, now: float, since: float, doubtful: bool
    ) -> None:
        """Wait before the next try, or raise Final when there is no time for one."""
        if failure.kind == "throttled":
            self.counters.throttled += 1
            self._slots.throttled(now)
        patience = self._address.deadline
        if not self._heard and failure.kind in ("refused", "host"):
            patience = min(patience, _FIRST_CONTACT)
        self._recovered.clear()
        self._budget = self._budget or RetryBudget(now)
        rest, token = pause(tries, self._chance), self._budget.wait(now)
        if now + rest >= since + patience:
            raise Final(failure, tries, now - since, doubtful)
        self._say(failure, tries, since + patience - now)
        await asyncio.sleep(rest)
        try:
            left = min(token - rest, since + patience - _now())
            if left > 0:
                await asyncio.wait_for(self._recovered.wait(), left)
        except TimeoutError:
            if token - rest > left:  # time is up before the token came
                raise Final(failure, tries, _now() - since, doubtful) from None

    async def _once(
        self, kind: str, attempt: Callable[[], Awaitable[T]], nbytes: int, read: int
    ) -> T:
        async with self._free:
            await self._free.wait_for(lambda: self._busy < self._slots.limit)
            self._busy += 1
        try:
            self.counters.sent(kind, nbytes)
            return await (attempt() if read < 0 else self._hedged(kind, attempt, read))
        finally:
            self._busy -= 1
            async with self._free:
                self._free.notify()

    async def _hedged(self, kind: str, attempt: Callable[[], Awaitable[T]], read: int) -> T:
        """One read, and a second beside it when the first is slower than 95 % of its like."""
        latencies = self._latencies.setdefault(read.bit_length() // 3, Latencies())
        started = _now()
        first = asyncio.ensure_future(attempt())
        tasks = [first]
        try:
            if latencies.slow is not None:
                done, _ = await asyncio.wait(tasks, timeout=max(latencies.slow, _LEAST_HEDGE))
                if not done and latencies.take():
                    self.counters.hedges += 1
                    self.counters.sent(kind)
                    tasks.append(asyncio.ensure_future(attempt()))
            winner = await _first_good(tasks)
            self.counters.hedges_won += winner is not first
            latencies.add(_now() - started)
            return winner.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _succeeded(self) -> None:
        self._heard = True
        self._slots.succeeded()
        if self._budget is not None:
            self._budget.succeeded()
        self._recovered.set()
        if self._failing:
            self._failing = False
            _log.info("the blob store serves again", extra=facts(url=self._address.url))

    def _say(self, failure: Failure, tries: int, left: float) -> None:
        if tries >= 4 and not self._failing:  # a hiccup is not worth a line
            self._failing = True
            _log.warning(
                "the blob store does not serve: %s; trying on", failure.told,
                extra=facts(url=self._address.url, seconds_left=round(left)),
            )  # fmt: skip


async def _first_good(tasks: Iterable[asyncio.Future[T]]) -> asyncio.Future[T]:
    """The first task that succeeds; the last to fail when none does."""
    pending: set[asyncio.Future[T]] = set(tasks)
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not task.exception() or not pending:
                return task


def _now() -> float:
    return asyncio.get_running_loop().time()
