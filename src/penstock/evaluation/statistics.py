"""Intervals, and how many samples would settle a question. All are 95 % and two-sided.

Counts may be fractions: then the functions answer for an expected outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, expm1, inf, pi, sin, sqrt

Z = 1.959963984540054  # the normal quantile of 0.975
_MOST = 10**9  # samples; a question that needs more is not settled by counting


def wilson(successes: float, trials: float, z: float = Z) -> tuple[float, float]:
    """Interval for a rate.

    successes  0..trials
    returns    (low, high) in 0..1; (0, 1) when nothing was tried
    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference.

    >>> [round(x, 2) for x in wilson(8, 10)]
    [0.49, 0.94]
    """
    if trials == 0:
        return 0.0, 1.0
    rate, spread = successes / trials, z * z / trials
    middle = (rate + spread / 2) / (1 + spread)
    half = z * sqrt(rate * (1 - rate) / trials + spread / (4 * trials)) / (1 + spread)
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    return low, 1.0 if successes == trials else min(1.0, middle + half)


def paired_difference(gained: float, lost: float, n: float, z: float = Z) -> tuple[float, float]:
    """Interval for the difference of two rates that were measured on the same samples.

    gained   samples that the first got right and the second wrong
    lost     the other way round
    n        samples in all
    returns  (low, high) in -1..1 for (gained - lost) / n; (-1, 1) when n is 0
    Source: Tango 1998, Equivalence test and confidence interval for the difference in proportions
    for the paired-sample design, Statistics in Medicine 17: 891-908. Inverts the score test.

    >>> [round(x, 3) for x in paired_difference(1, 7, 21)]
    [-0.517, -0.026]
    """
    if n == 0:
        return -1.0, 1.0

    def score(delta: float) -> float:
        a = 2 * n
        b = -gained - lost + (2 * n - gained + lost) * delta
        c = -lost * delta * (1 - delta)
        rare = (sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
        variance = n * (2 * rare + delta * (1 - delta))
        distance = gained - lost - n * delta
        if variance <= 0:
            return 0.0 if distance == 0 else (inf if distance > 0 else -inf)
        return distance / sqrt(variance)

    return _root(lambda delta: score(delta) - z), _root(lambda delta: score(delta) + z)


def _root(falling: Callable[[float], float]) -> float:
    """Where a falling function on -1..1 crosses zero, by bisection; the end where it does not."""
    low, high = -1.0, 1.0
    if falling(high) >= 0:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def mean_interval(mean: float, squares: float, n: int) -> tuple[float, float]:
    """Student's interval for a mean.

    squares  sum of squared deviations from the mean
    n        at least 2; with fewer nothing is known about the spread: (-inf, inf)
    """
    if n < 2:
        return -inf, inf
    half = t_quantile(n - 1) * sqrt(squares / (n - 1) / n)
    return mean - half, mean + half


def t_quantile(freedom: int) -> float:
    """The 0.975 quantile of Student's t; relative error below 1e-6.

    Source: Hill 1970, Algorithm 396: Student's t-quantiles, Communications of the ACM 13(10).

    >>> round(t_quantile(1), 3), round(t_quantile(9), 3), round(t_quantile(10**6), 3)
    (12.706, 2.262, 1.96)
    """
    tails, n = 0.05, float(freedom)
    if freedom == 1:
        return cos(tails * pi / 2) / sin(tails * pi / 2)
    if freedom == 2:
        return sqrt(2 / (tails * (2 - tails)) - 2)
    a = 1 / (n - 0.5)
    b = 48 / (a * a)
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * sqrt(a * pi / 2) * n
    y = (d * tails) ** (2 / n)
    if y <= 0.05 + a:
        e = ((n + 6) / (n * y) - 0.089 * d - 0.822) * (n + 2) * 3
        y = ((1 / e + 0.5 / (n + 4)) * y - 1) * (n + 1) / (n + 2) + 1 / y
        return sqrt(n * y)
    x, y = -Z, Z * Z
    if freedom < 5:
        c += 0.3 * (n - 4.5) * (x + 0.6)
    c += (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b
    y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
    return sqrt(n * expm1(a * y * y))


def samples_needed(settled: Callable[[float], bool], have: int) -> int | None:
    """The smallest number of samples with which `settled` holds, if all else stays as observed.

    settled  monotonous: once true it stays true. None when 1e9 samples do not settle it.
    """
    low, high = float(max(have, 1)), float(max(have, 1))
    while not settled(high):
        low, high = high, high * 2
        if high > _MOST:
            return None
    while high - low > max(1.0, 1e-3 * high):
        middle = (low + high) / 2
        low, high = (low, middle) if settled(middle) else (middle, high)
    return int(-(-high // 1))
