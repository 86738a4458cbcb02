"""How far apart two distributions are.

PSI, the population stability index, over bins i with shares p_i before and q_i now:

    PSI = sum_i (q_i - p_i) * ln(q_i / p_i)

below 0.1 is called stable, above 0.2 changed. Every bin gets half a row more, so that an empty one
is far but not infinitely far. With few rows PSI is above 0 by chance: for samples of n and m rows
of one distribution in B bins, PSI / (1/n + 1/m) is about chi-square with B - 1 degrees of freedom;
`by_chance` is its 99.9 % point, which a drift must exceed as well.
Source: Siddiqi 2006, Credit Risk Scorecards; Yurdakul 2018, Statistical Properties of Population
Stability Index; half a row by Krichevsky and Trofimov 1981; the chi-square point by Wilson and
Hilferty 1931.

KS is the largest difference of the two cumulative distributions, 0..1 (Kolmogorov 1933, Smirnov
1948).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from penstock.data.columns import Array
from penstock.data.sketches import Distribution

BINS = 10
_Z = 3.090232306167813  # of the normal distribution at 99.9 %


def psi(before: Sequence[float], now: Sequence[float], rows: int, rows_now: int) -> float:
    """The index of two lists of shares of the same bins, found in so many rows."""
    p = _more(np.asarray(before, float), rows)
    q = _more(np.asarray(now, float), rows_now)
    return float(((q - p) * np.log(q / p)).sum())


def _more(shares: Array, rows: int) -> Array:
    more: Array = (shares * rows + 0.5) / (rows + 0.5 * len(shares))
    return more


def by_chance(bins: int, before: int, now: int) -> float:
    """What PSI exceeds in one of a thousand pairs of samples of one distribution."""
    if bins < 2 or not before or not now:
        return 0.0
    free = bins - 1
    chi = free * (1 - 2 / (9 * free) + _Z * (2 / (9 * free)) ** 0.5) ** 3
    return float(chi * (1 / before + 1 / now))


def ks(one: Distribution, other: Distribution) -> float:
    """The largest difference between two distributions, as finely as their buckets tell."""
    if not one.total or not other.total:
        return 0.0
    both = type(one)(max(one.shift, other.shift))
    both.merge(one)
    both.merge(other)
    limits = both.edges()[1]
    apart = one.below(limits.tolist()) / one.total - other.below(limits.tolist()) / other.total
    return float(np.abs(apart).max())


def edges_of(found: Distribution) -> list[float]:
    """Limits that cut a distribution into (at most) ten bins of equal share."""
    if not found.total:
        return []
    ends = np.cumsum(found.counts)
    at = np.searchsorted(ends, np.arange(1, BINS) / BINS * ends[-1], side="right")
    low, _ = found.edges()  # where a bucket begins, none is cut
    return [float(each) for each in np.unique(low[at])]


def shares_of(found: Distribution, edges: Sequence[float]) -> list[float]:
    """The share of each of the len(edges) + 1 bins."""
    below: Array = found.below(edges) if len(edges) else np.empty(0)
    counts = np.diff(np.concatenate([[0.0], below, [found.total]]))
    return [float(each) for each in counts / max(1, found.total)]
