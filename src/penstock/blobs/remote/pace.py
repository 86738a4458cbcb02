"""How often to ask a store that fails, throttles or is slow. Pure: time is an argument.

Retry budget: a token bucket as in AWS SDKs' standard retry mode (one token a retry, given back by
success), here with a slow refill, so that a dead store is probed and not hammered. Back-off: "full
jitter" (Brooker, AWS Architecture Blog, 2015). Slots: additive increase, multiplicative decrease
(Chiu and Jain, 1989). Hedging: Dean and Barroso, The Tail at Scale, CACM 2013.
"""

from __future__ import annotations

import random
from collections import deque

FIRST_PAUSE = 0.05  # seconds, doubled by every further failure
LONGEST_PAUSE = 5.0
_CAPACITY = 40.0
_REFILL = 1.0  # tokens a second
_REWARD = 2.0  # tokens a success gives back
_SAMPLES = 256
_ENOUGH = 32  # samples before a percentile is believed
_APART = 1.5  # medians; where all reads take alike, the last 5 % are not slow
_SHARE = 0.05  # of reads that may be hedged
_SAVED = 10.0  # hedges that may be saved up


def pause(failures: int, chance: random.Random) -> float:
    """Seconds to wait after the n-th failure in a row, 1 the first."""
    limit: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 20))
    return chance.uniform(limit / 2, limit)


class RetryBudget:
    """Tokens for retries of one store in one process."""

    def __init__(self, now: float) -> None:
        self._tokens = _CAPACITY
        self._at = now

    def wait(self, now: float) -> float:
        """Take a token; the seconds until it is there (0 when it is there already)."""
        self._tokens = min(_CAPACITY, self._tokens + (now - self._at) * _REFILL)
        self._at = now
        self._tokens -= 1.0
        return max(0.0, -self._tokens / _REFILL)

    def succeeded(self) -> None:
        self._tokens = min(_CAPACITY, max(0.0, self._tokens) + _REWARD)


class Slots:
    """How many requests may be under way: halved when the store throttles, then regained."""

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._limit = float(most)
        self._halved = float("-inf")

    @property
    def limit(self) -> int:
        return max(1, int(self._limit))

    def throttled(self, now: float) -> None:
        if now - self._halved >= 0.5:  # one burst of refusals is one sign, not many
            self._halved = now
            self._limit = max(1.0, self._limit / 2)

    def succeeded(self) -> None:
        self._limit = min(self._most, self._limit + 1.0 / self._limit)


class Latencies:
    """Recent times of reads, and when one is slow enough to be asked twice."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_SAMPLES)
        self._since = 0
        self._slow: float | None = None
        self._credit = 0.0

    def add(self, seconds: float) -> None:
        """A read took this long. Every read earns its share of a hedge."""
        self._recent.append(seconds)
        self._credit = min(_SAVED, self._credit + _SHARE)
        self._since += 1
        if len(self._recent) >= _ENOUGH and (self._slow is None or self._since >= _ENOUGH):
            times = sorted(self._recent)
            self._slow = max(times[int(0.95 * len(times))], _APART * times[len(times) // 2])
            self._since = 0

    @property
    def slow(self) -> float | None:
        """Seconds after which a read is slow: the 95th percentile, well apart from the median.

        None until there are enough samples.
        """
        return self._slow

    def take(self) -> bool:
        """Whether one more hedge is within the share; if so it is spent."""
        if self._credit < 1.0:
            return False
        self._credit -= 1.0
        return True
